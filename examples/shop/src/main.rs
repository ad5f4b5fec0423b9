//! A small three-service shop.
fn main() {}
