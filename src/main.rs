//! The `pollux` binary: hands the command line to [`pollux::cli`].
fn main() -> std::process::ExitCode {
    pollux::cli::main()
}
