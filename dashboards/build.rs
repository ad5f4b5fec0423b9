//! The UI is embedded when this crate is compiled: it must be compiled again when the UI was built again.

fn main() {
    println!("cargo:rerun-if-changed=ui/dist");
}
