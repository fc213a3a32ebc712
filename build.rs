//! Build script: nothing to generate in the default build. Each optional driver has a function of its own here, which finds
//! the library it binds, or says what is missing and how to get it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "dpdk")]
    dpdk();
}

/// `net/dpdk`: DPDK found with pkg-config, our C shim over its inline functions compiled, and the shim's header bound with
/// bindgen. Drivers are not linked: DPDK's environment layer loads them from its own directory.
#[cfg(feature = "dpdk")]
fn dpdk() {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    const SHIM: &str = "src/net/dpdk/shim";
    /// The mbuf flags and ethdev constants the shim uses got their present names in this release.
    const OLDEST: &str = "21.11";
    /// What the shim calls itself; everything else comes in through these.
    const LIBRARIES: [&str; 6] = ["rte_ethdev", "rte_net", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal"];

    let missing = |what: &str| -> ! {
        println!("cargo::error=feature `dpdk`: {what}");
        println!(
            "cargo::error=it needs DPDK {OLDEST} or newer (known to work: 22.11.11, Debian 12's), a C compiler and libclang"
        );
        println!(
            "cargo::error=on Debian: apt-get install libdpdk-dev pkg-config gcc libclang-dev; elsewhere PKG_CONFIG_PATH names the folder of libdpdk.pc"
        );
        std::process::exit(1);
    };
    println!("cargo:rerun-if-changed={SHIM}.h");
    println!("cargo:rerun-if-changed={SHIM}.c");

    let found = pkg_config::Config::new().atleast_version(OLDEST).cargo_metadata(false).probe("libdpdk");
    let library = found.unwrap_or_else(|e| missing(&format!("pkg-config finds no usable libdpdk: {e}")));
    // Flags that are neither paths nor definitions (the instruction set, the configuration header) are not in what the
    // crate returns.
    let tool = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let flags = Command::new(tool).args(["--cflags", "libdpdk"]).output();
    let flags = flags.unwrap_or_else(|e| missing(&format!("pkg-config --cflags libdpdk: {e}"))).stdout;
    let flags = String::from_utf8_lossy(&flags).into_owned();

    let mut shim = cc::Build::new();
    shim.file(format!("{SHIM}.c")).warnings(true).extra_warnings(false).opt_level(3);
    for flag in flags.split_whitespace() {
        shim.flag(flag);
    }
    if let Err(e) = shim.try_compile("pollux_dpdk_shim") {
        missing(&format!("{SHIM}.c does not compile against DPDK {}: {e}", library.version));
    }
    for path in &library.link_paths {
        println!("cargo:rustc-link-search=native={}", path.display());
    }
    for name in LIBRARIES {
        println!("cargo:rustc-link-lib=dylib={name}");
    }

    // The header names no type of DPDK but as an opaque one, so it is read without DPDK's own headers.
    let bindings = bindgen::Builder::default()
        .header(format!("{SHIM}.h"))
        .allowlist_item("pollux_.*")
        .use_core()
        .layout_tests(false)
        .generate()
        .unwrap_or_else(|e| missing(&format!("bindgen could not read {SHIM}.h: {e}")));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    bindings.write_to_file(Path::new(&out).join("dpdk.rs")).unwrap_or_else(|e| missing(&format!("OUT_DIR: {e}")));
}
