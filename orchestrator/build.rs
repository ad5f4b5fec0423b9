//! How the binary is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Ten megabytes of addresses to relocate become two hundred kilobytes: they are all read at the start, and stay.
    if std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
