//! Build script: nothing to generate in the default build. Each optional driver has a function of its own here, which finds
//! the library it binds, or says what is missing and how to get it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "dpdk")]
    dpdk();
    #[cfg(feature = "spdk")]
    spdk();
}

/// `device/spdk`: SPDK found with pkg-config, our C shim over its macros and structures compiled, and the shim's header and
/// what it calls bound with bindgen.
#[cfg(feature = "spdk")]
fn spdk() {
    use std::env::{split_paths, var_os};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    const SHIM: &str = "src/device/spdk/shim";
    /// The oldest release whose structures and rules the driver was written to, as year and month.
    const OLDEST: (u32, u32) = (26, 5);
    /// The last one names what SPDK's libraries use without saying so.
    const PACKAGES: [&str; 4] = ["spdk_nvme", "spdk_env_dpdk", "spdk_sock_modules", "spdk_syslibs"];
    /// What the driver calls by SPDK's own names; the rest goes through the shim.
    const FUNCTIONS: &str = "spdk_nvme_(detach|ctrlr_(get_first_active_ns|process_admin_completions|disconnect|\
        reconnect_async|reconnect_poll_async|reconnect_io_qpair))|spdk_(mem_register|zmalloc|free)|pollux_.*";

    let missing = |what: &str| -> ! {
        println!("cargo::error=feature `spdk`: {what}");
        println!(
            "cargo::error=it needs an installed SPDK {}.{:02} or newer with its DPDK (known to work: SPDK 26.05 with Debian 12's DPDK 22.11.11), a C compiler and libclang",
            OLDEST.0, OLDEST.1
        );
        println!("cargo::error=PKG_CONFIG_PATH names the folder of spdk_nvme.pc, or SPDK_DIR a built SPDK tree");
        std::process::exit(1);
    };
    for name in ["SPDK_DIR", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed={SHIM}.h");
    println!("cargo:rerun-if-changed={SHIM}.c");

    let tree = var_os("SPDK_DIR").filter(|d| !d.is_empty()).map(|d| PathBuf::from(d).join("build/lib/pkgconfig"));
    let others = var_os("PKG_CONFIG_PATH").unwrap_or_default();
    let folders = std::env::join_paths(tree.into_iter().chain(split_paths(&others)));
    let folders = folders.unwrap_or_else(|e| missing(&format!("SPDK_DIR: {e}")));
    let ask = |what: &[&str]| -> Result<Vec<String>, String> {
        let tool = var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
        let out = Command::new(tool).env("PKG_CONFIG_PATH", &folders).args(what).output().map_err(|e| e.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() {
            Ok(text(&out.stdout).split_whitespace().map(str::to_owned).collect())
        } else {
            Err(text(&out.stderr).lines().next().unwrap_or("no reason given").to_owned())
        }
    };
    let query = |option| ask(&[&[option], &PACKAGES[..]].concat());
    let cflags = query("--cflags").unwrap_or_else(|e| missing(&format!("pkg-config finds no SPDK: {e}")));
    let libs = query("--libs").unwrap_or_else(|e| missing(&format!("pkg-config finds no SPDK: {e}")));

    // SPDK's pkg-config files count the versions of its libraries; the release is in a header.
    let system = ["/usr/local/include", "/usr/include"];
    let includes = cflags.iter().filter_map(|f| f.strip_prefix("-I")).chain(system);
    let header =
        includes.map(|dir| Path::new(dir).join("spdk/version.h")).find_map(|p| std::fs::read_to_string(p).ok());
    let header = header.unwrap_or_else(|| missing("SPDK's headers are not where its pkg-config files say"));
    let number = |name: &str| -> Option<u32> {
        header.lines().find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name)?.trim().parse().ok())
    };
    let release = (number("SPDK_VERSION_MAJOR"), number("SPDK_VERSION_MINOR"));
    let (Some(year), Some(month)) = release else { missing("SPDK's version.h names no version") };
    if (year, month) < OLDEST {
        missing(&format!("SPDK {year}.{month:02} was found, which is too old"));
    }
    // DPDK's libraries are named by SPDK's files whether they are there or not.
    let library = |name: &str| {
        let places = libs.iter().filter_map(|l| l.strip_prefix("-L").map(PathBuf::from));
        let system =
            ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/lib", "/usr/lib"];
        let mut places = places.chain(system.map(PathBuf::from));
        places.find_map(|p| ["so", "a"].map(|end| p.join(format!("lib{name}.{end}"))).into_iter().find(|f| f.exists()))
    };
    if library("rte_eal").is_none() {
        missing(
            "SPDK is there, but not the DPDK it was built with (librte_eal): on Debian apt-get install libdpdk-dev",
        );
    }

    let mut shim = cc::Build::new();
    shim.file(format!("{SHIM}.c")).warnings(true).extra_warnings(true).opt_level(3).flag("-std=gnu11");
    for flag in &cflags {
        shim.flag(flag);
    }
    if let Err(e) = shim.try_compile("pollux_spdk_shim") {
        missing(&format!("{SHIM}.c does not compile against SPDK {year}.{month:02}: {e}"));
    }

    // SPDK's transports and socket modules, and DPDK's drivers, enter themselves into lists when they are loaded; nobody
    // names them, so the linker must be told to keep them.
    let shared = library("spdk_nvme").is_some_and(|f| f.extension().is_some_and(|end| end == "so"));
    let keep = if shared { "--no-as-needed" } else { "--whole-archive" };
    println!("cargo:rustc-link-arg=-Wl,--push-state,{keep}");
    let mut folder_known = Vec::new();
    for flag in &libs {
        println!("cargo:rustc-link-arg={flag}");
        // A tree that is not installed is found again when the program starts.
        if let Some(folder) = flag.strip_prefix("-L").filter(|f| shared && !f.starts_with("/usr/"))
            && !folder_known.contains(&folder)
        {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
            folder_known.push(folder);
        }
    }
    println!("cargo:rustc-link-arg=-Wl,--pop-state");

    let bindings = bindgen::Builder::default()
        .header(format!("{SHIM}.h"))
        .clang_args(&cflags)
        .allowlist_function(FUNCTIONS)
        .allowlist_type("pollux_.*")
        .allowlist_var("SPDK_MALLOC_DMA|SPDK_ENV_NUMA_ID_ANY")
        .opaque_type("spdk_.*")
        .layout_tests(false)
        .generate()
        .unwrap_or_else(|e| missing(&format!("bindgen could not read {SHIM}.h: {e}")));
    let out = PathBuf::from(var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    bindings.write_to_file(out.join("spdk.rs")).unwrap_or_else(|e| missing(&format!("OUT_DIR: {e}")));
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
