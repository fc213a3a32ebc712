//! Random parameters for every method, random requests for the dispatcher: always a reply, never a panic.

use super::*;
use crate::base::rng::Rng;
use crate::rpc::params::Field;

const WORDS: &[&str] = &[
    "",
    "U0",
    "lvs",
    "lvs/vol",
    "M",
    "TCP",
    "127.0.0.1",
    "4420",
    "::1",
    "/disk",
    NQN,
    "all",
    "read",
    "failure",
    "SIGHUP",
    "nqn.2014-08.org.nvmexpress.discovery",
    "optimized",
    "unmap",
    "\u{0}",
    "é/é",
    "00112233445566778899aabbccddeeff",
    "3b4d2b2e-6a4c-4d0c-8f6e-0f6d1c2b3a49",
    "avg_read",
    "INFO",
    "none",
    "bdev",
    "nvmf",
];

fn value(rng: &mut Rng, field: Option<&Field>, depth: u32) -> Value {
    if let Some(field) = field
        && !field.inner.is_empty()
        && rng.chance(80)
    {
        return object(rng, field.inner, depth + 1);
    }
    let kind = field.map_or("", |f| f.kind);
    match (rng.below(10), kind) {
        (0..6, "number") => json!(rng.below(10_000)),
        (6, "number") => json!([0, 1, 255, 65_536, u64::from(u32::MAX) + 1, u64::MAX][rng.below(6) as usize]),
        (0..7, "boolean") => json!(rng.chance(50)),
        (0, _) => Value::Null,
        (1, _) => json!(-1.5e10),
        (2, _) if depth < 4 => json!([value(rng, None, depth + 1)]),
        (3, _) if depth < 4 => json!({"x": value(rng, None, depth + 1)}),
        _ => json!(WORDS[rng.below(WORDS.len() as u64) as usize]),
    }
}

fn object(rng: &mut Rng, fields: &[Field], depth: u32) -> Value {
    let mut members = serde_json::Map::new();
    for field in fields {
        if rng.chance(if field.required { 90 } else { 40 }) {
            members.insert(field.name.to_owned(), value(rng, Some(field), depth));
        }
    }
    if rng.chance(5) {
        members.insert("unknown".into(), Value::Null);
    }
    Value::Object(members)
}

/// Waiting, stopping and starting are not for this test.
fn patient(method: &str) -> bool {
    matches!(method, "bdev_get_bdevs" | "spdk_kill_instance" | "framework_start_init" | "framework_wait_init")
}

#[test]
fn every_method_takes_any_parameters() {
    on_runtime(async {
        let mut rng = Rng::new(5);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..4 {
            let c = node().await;
            let methods: Vec<_> = c.table.iter().map(|m| (m.name, m.fields)).filter(|(n, _)| !patient(n)).collect();
            for _ in 0..40 {
                for (name, fields) in &methods {
                    match call(&c, name, object(&mut rng, fields, 0)).await {
                        Ok(_) => good += 1,
                        Err((code, message)) => {
                            bad += 1;
                            assert!(code < 0 && !message.is_empty(), "{name}");
                        }
                    }
                }
            }
        }
        assert!(good > 1000 && bad > 1000, "{good} good, {bad} bad: the mix is off");
    });
}

#[test]
fn the_dispatcher_takes_any_text() {
    const SEEDS: &[&str] = &[
        r#"{"jsonrpc":"2.0","method":"log_get_level","id":1,"params":{}}"#,
        r#"[{"method":"log_set_level","params":{"level":"INFO"},"id":"x"},{"method":"no","id":null}]"#,
        r#"{"id":123456789012345678901234567890,"method":"spdk_get_version","params":null}"#,
        r#"{"method":"nvmf_subsystem_get_listeners","params":{"nqn":"\ud83d\ude00"},"id":-0}"#,
    ];
    on_runtime(async {
        let c = node().await;
        let mut rng = Rng::new(77);
        let mut replies = 0;
        for turn in 0..200_000 {
            let mut text = SEEDS[turn % SEEDS.len()].as_bytes().to_vec();
            for _ in 0..=rng.below(3) {
                let at = rng.below(text.len() as u64) as usize;
                match rng.below(4) {
                    0 => text[at] = rng.next_u64() as u8,
                    1 => text[at] ^= 1 << rng.below(8),
                    2 => drop(text.remove(at)),
                    _ => text.insert(at, b"{}[],:\"0e-\\"[rng.below(11) as usize]),
                }
            }
            let (Answered::Reply(reply) | Answered::Close(reply)) = answer(&c, Caller::Admin, &text).await;
            if !reply.is_empty() {
                replies += 1;
                serde_json::from_str::<Value>(&reply).unwrap_or_else(|e| panic!("{reply}: {e}"));
            }
        }
        assert!(replies > 100_000);
    });
}
