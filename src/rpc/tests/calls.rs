//! Calls and their replies: framing of replies, states, and the compatibility traps that clients depend on.

use super::*;

#[test]
fn replies_follow_json_rpc() {
    on_runtime(async {
        let c = node().await;
        let version = say(&c, r#"{"method":"pollux_get_version","id":"a\u0062"}"#).await;
        assert!(version.starts_with(r#"{"jsonrpc":"2.0","id":"a\u0062","result":{"version":"#), "{version}");
        assert!(version.ends_with("}\n"));
        for (text, reply) in [
            // The id comes back byte for byte.
            (r#"{"method":"log_get_level","id":1.50}"#, r#"{"jsonrpc":"2.0","id":1.50,"result":"INFO"}"#),
            // Nobody waits for a success without an id; an error is said anyway.
            (r#"{"method":"log_get_level"}"#, ""),
            (r#"{"method":"log_get_level","id":null}"#, ""),
            (
                r#"{"method":"no"}"#,
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"Method not found: 'no'"}}"#,
            ),
        ] {
            assert_eq!(say(&c, text).await.trim_end(), reply, "{text}");
        }
        for (text, code, id) in [
            (r#"{"id":1}"#, -32600, "1"),
            (r#"{"id":7,"method":3}"#, -32600, "7"),
            (r#"{"id":7,"method":"log_get_level","jsonrpc":"1.0"}"#, -32600, "7"),
            (r#"{"id":7,"method":"log_get_level","extra":1}"#, -32600, "7"),
            (r#"{"id":7,"method":"log_get_level","method":"x"}"#, -32600, "7"),
            (r#"{"id":{},"method":"log_get_level"}"#, -32600, "null"),
            (r#"{"id":[],"method":"log_get_level"}"#, -32600, "null"),
            (r#"{"id":7,"method":"log_get_level","params":"x"}"#, -32602, "7"),
            (r"[]", -32600, "null"),
            (r"{,}", -32700, "null"),
            ("{\"a\":\"\u{7f}\\ud800\"}", -32700, "null"),
        ] {
            let reply = say(&c, text).await;
            let wanted = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},");
            assert!(reply.starts_with(&wanted), "{text}: {reply}");
        }
        assert!(matches!(answer(&c, Caller::Admin, b"{,}").await, Answered::Close(_)));
        assert!(matches!(answer(&c, Caller::Admin, b"{}").await, Answered::Reply(_)));
    });
}

#[test]
fn batches_are_answered_in_one_array() {
    on_runtime(async {
        let c = node().await;
        let batch = r#"[{"method":"log_get_level","id":1},{"method":"log_get_level"},{"method":"no"},5,
                        {"method":"log_get_print_level","id":"x"}]"#;
        let replies: Value = serde_json::from_str(&say(&c, batch).await).unwrap();
        let ids: Vec<&Value> = replies.as_array().unwrap().iter().map(|r| &r["id"]).collect();
        assert_eq!(ids, [&json!(1), &Value::Null, &Value::Null, &json!("x")]);
        assert_eq!(replies[2]["error"]["code"], -32600);
        assert_eq!(say(&c, r#"[{"method":"log_get_level"},{"method":"log_get_level","id":null}]"#).await, "");
    });
}

#[test]
fn methods_keep_to_their_state() {
    on_runtime(async {
        let c = stopped();
        let names =
            |v: &Value| v.as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect::<Vec<_>>();
        let current = names(&ok(&c, "rpc_get_methods", json!({"current": true, "include_aliases": false})).await);
        assert!(current.contains(&"framework_start_init".to_owned()));
        assert!(current.contains(&"bdev_set_options".to_owned()));
        assert!(!current.contains(&"bdev_get_bdevs".to_owned()));
        let (code, message) = call(&c, "bdev_get_bdevs", json!({})).await.unwrap_err();
        assert_eq!(code, -1);
        assert!(message.contains("Method may only be called after framework is initialized"), "{message}");
        assert_eq!(ok(&c, "framework_start_init", json!({})).await, json!(true));
        assert_eq!(ok(&c, "framework_wait_init", json!({})).await, json!(true));
        // spdk-rpc load_config loops for ever when it is still listed.
        let current = names(&ok(&c, "rpc_get_methods", json!({"current": true})).await);
        assert!(!current.contains(&"framework_start_init".to_owned()));
        assert!(names(&ok(&c, "rpc_get_methods", json!({})).await).contains(&"framework_start_init".to_owned()));
        let (code, message) = call(&c, "framework_start_init", json!({})).await.unwrap_err();
        assert_eq!(code, -1);
        assert!(message.contains("Method may only be called before framework is initialized"), "{message}");
        assert!(current.len() >= 80, "{} methods", current.len());
        for name in current {
            let shown = ok(&c, "pollux_get_schema", json!({"method": name})).await;
            assert!(!shown[0]["doc"].as_str().unwrap().is_empty());
        }
    });
}

#[test]
fn version_says_spdk_and_pollux() {
    on_runtime(async {
        let version = ok(&stopped(), "spdk_get_version", Value::Null).await;
        assert_eq!(version["fields"]["major"], 26);
        let text = version["version"].as_str().unwrap();
        assert!(text.starts_with("SPDK v26.09") && text.contains("Pollux"), "{text}");
    });
}

/// A store with a volume, and an exported raw disk.
async fn furnish(c: &Rc<Context<FakeNode>>) -> String {
    assert_eq!(ok(c, "bdev_uring_create", json!({"name": "U0", "filename": "/disk", "block_size": 4096})).await, "U0");
    ok(c, "bdev_lvol_create_lvstore", json!({"bdev_name": "U0", "lvs_name": "lvs"})).await;
    let create = json!({"lvol_name": "vol", "size_in_mib": 16, "lvs_name": "lvs", "thin_provision": true});
    let uuid = ok(c, "bdev_lvol_create", create).await.as_str().unwrap().to_owned();
    ok(c, "nvmf_create_transport", json!({"trtype": "tcp"})).await;
    ok(c, "nvmf_create_subsystem", json!({"nqn": NQN, "serial_number": "S1", "max_namespaces": 8})).await;
    let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": "lvs/vol"}});
    assert_eq!(ok(c, "nvmf_subsystem_add_ns", namespace).await, 1);
    let address = json!({"trtype": "tcp", "traddr": "127.0.0.1", "trsvcid": "4420", "adrfam": "ipv4"});
    ok(c, "nvmf_subsystem_add_listener", json!({"nqn": NQN, "listen_address": address})).await;
    uuid
}

#[test]
fn the_shapes_that_clients_read() {
    on_runtime(async {
        let c = node().await;
        let uuid = furnish(&c).await;
        let bdev = &ok(&c, "bdev_get_bdevs", json!({"name": "lvs/vol"})).await[0];
        assert_eq!(bdev["name"], uuid);
        assert_eq!(bdev["aliases"], json!(["lvs/vol"]));
        assert_eq!(bdev["product_name"], "Logical Volume");
        assert_eq!(bdev["driver_specific"]["lvol"]["base_bdev"], "U0");
        assert_eq!(bdev["driver_specific"]["lvol"]["thin_provision"], true);
        assert_eq!(bdev["driver_specific"]["lvol"]["num_allocated_clusters"], 3);
        assert_eq!((&bdev["block_size"], &bdev["num_blocks"]), (&json!(4096), &json!(4096)));
        let disk = &ok(&c, "bdev_get_bdevs", json!({"name": "U0"})).await[0];
        assert_eq!((&disk["claimed"], &disk["product_name"]), (&json!(true), &json!("URING bdev")));
        let stores = ok(&c, "bdev_lvol_get_lvstores", json!({"lvs_name": "lvs"})).await;
        assert_eq!(stores[0]["total_data_clusters"], 1 << 18);
        assert_eq!(stores[0]["cluster_size"], 4096);
        let lvols = ok(&c, "bdev_lvol_get_lvols", json!({"uuid": stores[0]["uuid"]})).await;
        assert_eq!((&lvols[0]["alias"], &lvols[0]["lvs"]["name"]), (&json!("lvs/vol"), &json!("lvs")));

        let subsystems = ok(&c, "nvmf_get_subsystems", json!({})).await;
        assert_eq!(subsystems[0]["subtype"], "Discovery", "the discovery subsystem comes first");
        let namespace = &subsystems[1]["namespaces"][0];
        assert_eq!((&namespace["bdev_name"], &namespace["name"]), (&json!(uuid), &json!(uuid)));
        assert_eq!(namespace["nguid"], uuid.replace('-', "").to_uppercase());
        let address = json!({"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4420"});
        assert_eq!(subsystems[1]["listen_addresses"][0], address);
        assert_eq!(ok(&c, "nvmf_subsystem_get_listeners", json!({"nqn": NQN})).await[0]["address"], address);

        let reactors = ok(&c, "framework_get_reactors", json!({})).await;
        assert_eq!(reactors["reactors"][1]["lcore"], 5);
        assert_eq!(reactors["reactors"][1]["lw_threads"][0]["cpumask"], "20");
        assert_eq!(reactors["reactors"][1]["lw_threads"][0]["name"], "nvmf_tgt_poll_group_001");
        let pollers = ok(&c, "thread_get_pollers", json!({})).await;
        assert_eq!(pollers["threads"][0]["active_pollers"][0]["busy_count"], 3);
        let iostat = ok(&c, "bdev_get_iostat", json!({"names": ["U0"]})).await;
        assert_eq!(iostat["bdevs"][0]["num_read_ops"], 4, "both cores");
        assert_eq!(iostat, ok(&c, "bdev_get_iostat", json!({"name": "U0"})).await, "as older clients ask");
        let channels = ok(&c, "bdev_get_iostat", json!({"names": ["U0"], "per_channel": true})).await;
        assert_eq!(channels["channels"][1]["thread_id"], 2);
    });
}

#[test]
fn refusals_have_the_codes_and_words_that_clients_match() {
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        let address = |addr: &str| json!({"trtype": "TCP", "traddr": addr, "trsvcid": "4420"});
        for (method, params, code, words) in [
            ("bdev_get_bdevs", json!({"name": "nosuch"}), -19, "No such device"),
            ("bdev_get_bdevs", json!({"name": "nosuch", "timeout": 30}), -110, "Connection timed out"),
            ("bdev_malloc_delete", json!({"name": "U0"}), -19, "No such device: bdev 'U0' is not a malloc bdev"),
            ("bdev_malloc_create", json!({"name": "U0", "block_size": 512, "num_blocks": 1}), -17, "File exists"),
            ("bdev_malloc_create", json!({"block_size": 777, "num_blocks": 1}), -22, "Invalid argument: block_size"),
            (
                "bdev_malloc_create",
                json!({"block_size": 512}),
                -32603,
                "spdk_json_decode_object failed: parameter 'num_blocks'",
            ),
            ("bdev_aio_create", json!({"name": "A", "filename": "/none"}), -2, "No such file or directory"),
            ("bdev_lvol_create", json!({"lvol_name": "vol", "size": 1, "lvs_name": "lvs"}), -17, "File exists"),
            ("bdev_lvol_create", json!({"lvol_name": "v", "size": 1, "lvs_name": "no"}), -19, "No such device"),
            (
                "bdev_lvol_create",
                json!({"lvol_name": "v", "size_in_mib": 1, "size": 1, "lvs_name": "lvs"}),
                -22,
                "either",
            ),
            (
                "bdev_lvol_create",
                json!({"lvol_name": "v", "size_in_mib": 4096, "lvs_name": "lvs"}),
                -32602,
                "No space left on device",
            ),
            ("bdev_lvol_rename_lvstore", json!({"old_name": "a", "new_name": "b"}), -2, "Lvol store a not found"),
            ("nvmf_create_transport", json!({"trtype": "TCP"}), -32603, "Transport type 'TCP' already exists"),
            (
                "nvmf_subsystem_get_listeners",
                json!({"nqn": "nqn.x"}),
                -32602,
                "Invalid parameters: Subsystem with NQN 'nqn.x' not found",
            ),
            ("nvmf_create_subsystem", json!({"nqn": "bad"}), -32603, "Unable to create subsystem bad"),
            ("nvmf_create_subsystem", json!({"nqn": NQN}), -32603, "Unable to create subsystem nqn"),
            (
                "nvmf_subsystem_add_ns",
                json!({"nqn": NQN, "namespace": {"bdev_name": "no"}}),
                -32602,
                "Invalid parameters: No such device",
            ),
            (
                "nvmf_subsystem_add_listener",
                json!({"nqn": NQN, "listen_address": address("127.0.0.1")}),
                -32602,
                "Invalid parameters: listener",
            ),
            (
                "nvmf_subsystem_add_listener",
                json!({"nqn": NQN, "listen_address": address("host")}),
                -32602,
                "Invalid parameters: parameter 'traddr'",
            ),
            ("nvmf_subsystem_add_host", json!({"nqn": NQN, "host": NQN, "dhchap_key": "k"}), -32602, "not supported"),
            ("framework_get_config", json!({"name": "no"}), -32602, "Subsystem 'no' not found"),
            ("log_set_flag", json!({"flag": "no"}), -32602, "Invalid parameters: flag 'no' is unknown"),
            ("bdev_get_iostat", json!({"per_channel": true}), -22, "one bdev"),
        ] {
            let (got, message) = call(&c, method, params.clone()).await.expect_err(method);
            assert_eq!(got, code, "{method} {params}: {message}");
            assert!(message.contains(words), "{method} {params}: {message}");
        }
    });
}

#[test]
fn older_and_foreign_spellings_work() {
    on_runtime(async {
        let c = node().await;
        let transport = json!({"trtype": "TCP", "io_unit_size": 131_072, "max_qpairs_per_ctrlr": 5, "zcopy": false});
        ok(&c, "nvmf_create_transport", transport).await;
        let shown = ok(&c, "nvmf_get_transports", Value::Null).await;
        assert_eq!((&shown[0]["io_unit_size"], &shown[0]["max_io_qpairs_per_ctrlr"]), (&json!(131_072), &json!(4)));
        assert_eq!((&shown[0]["zcopy"], &shown[0]["trtype"]), (&json!(false), &json!("TCP")));
        ok(
            &c,
            "bdev_aio_create",
            json!({"name": "A", "filename": "/disk", "block_size": 512, "readonly": false,
            "fallocate": false, "nowait": false}),
        )
        .await;
        ok(&c, "bdev_lvol_create_lvstore", json!({"bdev_name": "A", "lvs_name": "l", "clear_method": "unmap"})).await;
        // spdk-csi's call, byte size rounded up to MiB.
        let csi = json!({"lvol_name": "pvc", "size": 1_048_577, "lvs_name": "l", "clear_method": "unmap", "thin_provision": true});
        ok(&c, "bdev_lvol_create", csi).await;
        assert_eq!(ok(&c, "bdev_get_bdevs", json!({"name": "l/pvc"})).await[0]["num_blocks"], 4096);
        ok(&c, "bdev_lvol_resize", json!({"name": "l/pvc", "size": 4 << 20})).await;
        ok(&c, "bdev_lvol_rename", json!({"old_name": "l/pvc", "new_name": "new"})).await;
        ok(&c, "bdev_lvol_delete", json!({"name": "l/new"})).await;
        for ignored in ["bdev_set_options", "sock_impl_set_options", "nvmf_set_config"] {
            assert_eq!(ok(&c, ignored, json!({"anything": [1, {"goes": true}]})).await, true);
        }
        // As SPDK: `true`, and the name made of the base's.
        ok(&c, "bdev_null_create", json!({"name": "N", "num_blocks": 8, "block_size": 512})).await;
        assert_eq!(ok(&c, "bdev_error_create", json!({"base_name": "N"})).await, true);
        let fail = json!({"name": "EE_N", "io_type": "read", "error_type": "failure", "num": 2});
        ok(&c, "bdev_error_inject_error", fail).await;
        assert!(c.control.node().calls.borrow().iter().any(|call| call.contains("count: 2")));
        assert_eq!(ok(&c, "bdev_malloc_create", json!({"num_blocks": 8, "block_size": 512})).await, "Malloc0");
    });
}

/// What is saved, loaded into an empty node, and saved again.
#[test]
fn a_saved_configuration_makes_the_same_node() {
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        ok(&c, "bdev_malloc_create", json!({"name": "M", "num_blocks": 64, "block_size": 512})).await;
        let delay = json!({"name": "D", "base_bdev_name": "M", "avg_read_latency": 1, "p99_read_latency": 2,
            "avg_write_latency": 3, "p99_write_latency": 4});
        ok(&c, "bdev_delay_create", delay).await;
        ok(&c, "bdev_error_create", json!({"base_name": "D"})).await;
        let namespace = json!({"bdev_name": "EE_D", "nsid": 7, "eui64": "0011223344556677"});
        ok(&c, "nvmf_subsystem_add_ns", json!({"nqn": NQN, "namespace": namespace})).await;
        ok(&c, "nvmf_subsystem_add_host", json!({"nqn": NQN, "host": "nqn.2016-06.io.spdk:h"})).await;
        ok(&c, "bdev_null_create", json!({"name": "N", "num_blocks": 8, "block_size": 512})).await;
        let hidden = json!({"bdev_name": "N", "nsid": 8, "no_auto_visible": true});
        ok(&c, "nvmf_subsystem_add_ns", json!({"nqn": NQN, "namespace": hidden})).await;
        ok(&c, "nvmf_ns_add_host", json!({"nqn": NQN, "nsid": 8, "host": "nqn.2016-06.io.spdk:h"})).await;
        let referral = json!({"trtype": "tcp", "traddr": "::1", "trsvcid": "8009"});
        ok(&c, "nvmf_discovery_add_referral", json!({"address": referral})).await;
        let saved = save(&c).await;
        assert!(saved.len() == 16, "{saved:?}");
        let again = stopped_on(&MemFile::new(Fuse::of(u64::MAX)), &c.control.node().world);
        again.start().await;
        for entry in &saved {
            ok(&again, entry["method"].as_str().unwrap(), entry["params"].clone()).await;
        }
        assert_eq!(save(&again).await, saved);
    });
}

/// Namespaces are shown to hosts one by one where they were added so; saying it twice changes nothing, as with SPDK.
#[test]
fn namespaces_are_shown_and_hidden() {
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        ok(&c, "bdev_null_create", json!({"name": "N", "num_blocks": 8, "block_size": 512})).await;
        let hidden = json!({"bdev_name": "N", "no_auto_visible": true});
        assert_eq!(ok(&c, "nvmf_subsystem_add_ns", json!({"nqn": NQN, "namespace": hidden})).await, 2);
        let host = "nqn.2016-06.io.spdk:h";
        let shown = async || {
            let all = ok(&c, "nvmf_get_subsystems", json!({"nqn": NQN})).await;
            assert!(all[0]["namespaces"][0]["hosts"].is_null(), "seen by all");
            all[0]["namespaces"][1]["hosts"].clone()
        };
        assert_eq!(shown().await, json!([]));
        let params = json!({"nqn": NQN, "nsid": 2, "host": host});
        for _ in 0..2 {
            assert_eq!(ok(&c, "nvmf_ns_add_host", params.clone()).await, true);
            assert_eq!(shown().await, json!([{"nqn": host}]));
        }
        for _ in 0..2 {
            assert_eq!(ok(&c, "nvmf_ns_remove_host", params.clone()).await, true);
            assert_eq!(shown().await, json!([]));
        }
        for (nsid, why) in [(1, "seen by all hosts"), (3, "namespace 3"), (0, "namespace 0")] {
            let params = json!({"nqn": NQN, "nsid": nsid, "host": host});
            for method in ["nvmf_ns_add_host", "nvmf_ns_remove_host"] {
                let (code, message) = call(&c, method, params.clone()).await.expect_err(method);
                assert!(code == -32602 && message.contains(why), "{nsid}: {message}");
            }
        }
    });
}

async fn save(c: &Rc<Context<FakeNode>>) -> Vec<Value> {
    let mut calls = Vec::new();
    for part in ok(c, "framework_get_subsystems", Value::Null).await.as_array().unwrap() {
        let config = ok(c, "framework_get_config", json!({"name": part["subsystem"], "with_batches": false})).await;
        calls.extend(config.as_array().unwrap().clone());
    }
    calls
}

#[test]
fn the_log_has_its_knobs() {
    on_runtime(async {
        let c = node().await;
        ok(&c, "log_set_level", json!({"level": "debug"})).await;
        assert_eq!(ok(&c, "log_get_level", Value::Null).await, "DEBUG");
        assert_eq!(c.logging.get().directives(), "info", "the print level is the stricter one");
        ok(&c, "log_set_print_level", json!({"level": "ERROR"})).await;
        ok(&c, "log_set_flag", json!({"flag": "store"})).await;
        assert_eq!(c.logging.get().directives(), "error,pollux::store=trace");
        assert_eq!(ok(&c, "log_get_flags", Value::Null).await["store"], true);
        ok(&c, "log_set_flag", json!({"flag": "all"})).await;
        ok(&c, "log_clear_flag", json!({"flag": "all"})).await;
        assert_eq!(c.logging.get().directives(), "error");
        ok(&c, "log_enable_timestamps", json!({"enabled": false})).await;
        assert!(!c.logging.get().timestamps);
    });
}

#[test]
fn problems_and_stores_are_explained() {
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        assert_eq!(ok(&c, "pollux_get_problems", Value::Null).await, json!([]));
        let usage = ok(&c, "pollux_store_get_usage", json!({"store": "lvs"})).await;
        assert_eq!(usage["volumes"][0]["mapped_bytes"], 3 * 4096);
        assert_eq!(usage["total_bytes"], 1 << 30);
        ok(&c, "pollux_store_scrub_start", json!({"store": "lvs"})).await;
        assert_eq!(ok(&c, "pollux_store_scrub_status", json!({"store": "lvs"})).await["running"], true);
        let types: Vec<_> = ok(&c, "notify_get_notifications", json!({"id": 1})).await.as_array().unwrap().clone();
        assert_eq!(types[0]["type"], "bdev_register");
        ok(&c, "spdk_kill_instance", json!({"sig_name": "SIGTERM"})).await;
        assert!(*c.control.node().stopped.borrow());
    });
}
