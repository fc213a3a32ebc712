//! The walls of the project: which folder of `src/` may import which (`src/layers.toml`), where unsafe code may be, and that
//! everything above the drivers gets time, sockets, files and randomness as arguments.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose code must run unchanged under the simulator.
const SANS_IO: [&str; 10] =
    ["base", "wire", "transform", "auth", "store", "repl", "volume", "nvmf", "iscsi", "initiator"];
/// What such code may not reach for; `base` owns the clock and the seeded generator, so it alone may name a clock.
const WORLD: [&str; 6] = ["std::net", "std::fs", "std::thread", "std::process", "SystemTime::now", "Instant::now"];
/// Folders that are safe Rust throughout.
const SAFE: [&str; 7] = ["wire", "transform", "auth", "volume", "nvmf", "iscsi", "rpc"];
/// Names that attract everything.
const CATCH_ALLS: [&str; 6] = ["core", "common", "util", "types", "helpers", "misc"];

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The layer table, in the order of the file: the lowest folder first.
fn layers() -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(source_root().join("layers.toml")).expect("src/layers.toml");
    text.lines()
        .filter_map(|line| line.split('#').next()?.split_once('='))
        .map(|(folder, list)| {
            let names = list.trim().trim_start_matches('[').trim_end_matches(']').split(',');
            let names = names.map(|name| name.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty());
            (folder.trim().to_owned(), names.collect())
        })
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable folder").map(|entry| entry.expect("entry").path()) {
        if entry.is_dir() {
            rust_files(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

/// Source without comments and without the contents of strings; line breaks stay, so that lines keep their numbers.
fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(end) =
            raw_string_end(rest).filter(|_| !at.checked_sub(1).is_some_and(|before| is_name(bytes[before])))
        {
            end
        } else if rest.starts_with('"') {
            string_end(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            rest[2..].find('\'').map_or(rest.len(), |end| end + 3)
        } else {
            0
        };
        if skipped == 0 {
            let letter = rest.chars().next().expect("not at the end");
            out.push(letter);
            at += letter.len_utf8();
        } else {
            out.extend(rest[..skipped].chars().filter(|letter| *letter == '\n'));
            out.push(' ');
            at += skipped;
        }
    }
    out
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn raw_string_end(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = body.bytes().take_while(|byte| *byte == b'#').count();
    let open = rest.len() - body.len() + hashes;
    body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    rest[open + 1..].find(&close).map(|end| open + 1 + end + close.len())
}

fn string_end(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The first names after each `prefix`, those of a group `{a::b, c}` included, with their line numbers.
fn named_after(code: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if at.checked_sub(1).is_some_and(|before| is_name(code.as_bytes()[before])) {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = code[at + prefix.len()..].trim_start();
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_usize;
            let mut expecting = true;
            for (start, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => expecting = true,
                    _ if expecting && !letter.is_whitespace() => {
                        found.push((line, first_name(&group[start..])));
                        expecting = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push((line, first_name(rest)));
        }
    }
    found
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// (path from `src/`, its folder, its code) of every file inside a layer folder.
fn layered_files() -> Vec<(String, String, String)> {
    let root = source_root();
    let mut paths = Vec::new();
    rust_files(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| {
            let inside = path.strip_prefix(&root).expect("under src").to_str().expect("utf-8 path").to_owned();
            let folder = inside.split_once('/')?.0.to_owned();
            Some((inside, folder, code_only(&fs::read_to_string(&path).expect("readable source"))))
        })
        .collect()
}

fn assert_none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

#[test]
fn imports_stay_inside_the_layer_table() {
    let table: BTreeMap<String, Vec<String>> = layers().into_iter().collect();
    let mut wrong = Vec::new();
    for (path, folder, code) in layered_files() {
        let Some(allowed) = table.get(&folder) else {
            wrong.push(format!("{path}: folder {folder} is not in src/layers.toml"));
            continue;
        };
        for (line, name) in named_after(&code, "crate::") {
            if name != folder && table.contains_key(&name) && !allowed.contains(&name) {
                wrong.push(format!("{path}:{line}: {folder} may not import {name}"));
            }
        }
        // A path of `super`s that leaves the folder would go around the table.
        let file_depth = path.matches('/').count() - usize::from(path.ends_with("/mod.rs"));
        let inline = code.matches("mod tests {").count();
        for (at, _) in code.match_indices("super::super::") {
            let supers = code[at..].split("::").take_while(|part| part.trim() == "super").count();
            if supers > file_depth + inline {
                let line = code[..at].matches('\n').count() + 1;
                wrong.push(format!("{path}:{line}: a path of supers leaves the folder; name it through crate::"));
            }
        }
    }
    assert_none("imports outside src/layers.toml", &wrong);
}

#[test]
fn the_layer_table_matches_the_folders_and_only_points_down() {
    let table = layers();
    let mut wrong = Vec::new();
    for (rank, (folder, imports)) in table.iter().enumerate() {
        if !source_root().join(folder).is_dir() {
            wrong.push(format!("{folder} is in the table and not in src/"));
        }
        for import in imports {
            if !table[..rank].iter().any(|(lower, _)| lower == import) {
                wrong.push(format!("{folder} imports {import}, which does not stand above it in the table"));
            }
        }
    }
    for entry in fs::read_dir(source_root()).expect("src").map(|entry| entry.expect("entry")) {
        let name = entry.file_name().into_string().expect("utf-8 name");
        if entry.path().is_dir() && !table.iter().any(|(folder, _)| *folder == name) {
            wrong.push(format!("src/{name} is not in the table"));
        }
    }
    assert_none("src/layers.toml", &wrong);
}

#[test]
fn no_folder_or_file_attracts_everything() {
    let wrong: Vec<String> = layered_files()
        .into_iter()
        .filter(|(path, ..)| path.trim_end_matches(".rs").split('/').any(|part| CATCH_ALLS.contains(&part)))
        .map(|(path, ..)| path)
        .collect();
    assert_none("names that say nothing", &wrong);
}

#[test]
fn safe_folders_forbid_unsafe_code() {
    let library = fs::read_to_string(source_root().join("lib.rs")).expect("src/lib.rs");
    let declared = |folder: &str| library.contains(&format!("#[forbid(unsafe_code)]\npub mod {folder};"));
    let inside = |folder: &str| {
        fs::read_to_string(source_root().join(folder).join("mod.rs"))
            .is_ok_and(|text| text.contains("#![forbid(unsafe_code)]"))
    };
    let wrong: Vec<String> =
        SAFE.iter().filter(|folder| !declared(folder) && !inside(folder)).map(|folder| (*folder).to_owned()).collect();
    assert_none("folders without #[forbid(unsafe_code)]", &wrong);
}

#[test]
fn code_above_the_drivers_reaches_for_nothing_outside() {
    let mut wrong = Vec::new();
    for (path, folder, code) in layered_files() {
        if !SANS_IO.contains(&folder.as_str()) || path.contains("tests") {
            continue;
        }
        let code = code.split("#[cfg(test)]").next().expect("at least one part");
        for name in WORLD.iter().filter(|name| !(folder == "base" && name.ends_with("::now"))) {
            for (at, _) in code.match_indices(name) {
                wrong.push(format!("{path}:{}: {name}", code[..at].matches('\n').count() + 1));
            }
        }
    }
    assert_none("time, sockets, files and threads come in as arguments here", &wrong);
}

/// The checker itself: what it must see, and what it must not.
#[test]
fn the_checker_sees_imports_and_only_imports() {
    let names = |source: &str| -> Vec<String> {
        named_after(&code_only(source), "crate::").into_iter().map(|(_, name)| name).collect()
    };
    assert_eq!(names("use crate::store::log;"), ["store"]);
    assert_eq!(names("use crate::{mem::{Arena, Pool}, net, wire::pdu as p};"), ["mem", "net", "wire"]);
    assert_eq!(names("fn f(x: crate::volume::Request) { crate::nvmf::g() }"), ["volume", "nvmf"]);
    assert_eq!(names("pub(in crate::store) fn f() {}"), ["store"]);
    assert!(
        names("// use crate::store;\n/* crate::net */ let s = \"crate::mem \\\" crate::rpc\"; let c = '\"';")
            .is_empty()
    );
    assert!(names("let s = r#\"crate::mem \" crate::rpc\"#;").is_empty());
    assert!(names("use supercrate::store;").is_empty());
}
