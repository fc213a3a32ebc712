//! Build script: nothing to generate in the default build; it pins what a rebuild depends on.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
