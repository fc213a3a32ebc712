//! iSCSI's methods: shapes that clients read, what is refused, who sees secrets, and the saved configuration.

use super::*;

const SECRET: &str = "only-root-sees-me";

/// Calls that make one of everything.
async fn furnish(c: &Rc<Context<FakeNode>>) {
    ok(c, "bdev_malloc_create", json!({"name": "M0", "num_blocks": 64, "block_size": 512})).await;
    ok(c, "bdev_null_create", json!({"name": "N0", "num_blocks": 64, "block_size": 4096})).await;
    for (method, params) in [
        ("iscsi_set_options", json!({"nop_timeout": 30, "max_queue_depth": 64, "pdu_pool_size": 4096})),
        ("iscsi_create_portal_group", json!({"tag": 1, "portals": [{"host": "127.0.0.1", "port": "3260"}]})),
        (
            "iscsi_create_portal_group",
            json!({"tag": 2, "private": true, "wait": true,
                "portals": [{"host": "[::1]", "port": "3260"}, {"host": "*", "port": "3261"}]}),
        ),
        ("iscsi_create_initiator_group", json!({"tag": 2, "initiators": ["ANY"], "netmasks": ["127.0.0.0/8"]})),
        (
            "iscsi_create_auth_group",
            json!({"tag": 1, "secrets": [{"user": "u", "secret": SECRET, "muser": "m", "msecret": "another-secret"}]}),
        ),
        ("iscsi_portal_group_set_auth", json!({"tag": 1, "require_chap": true, "chap_group": 1})),
        (
            "iscsi_create_target_node",
            json!({"name": "disk1", "alias_name": "d", "queue_depth": 64, "luns": [{"bdev_name": "M0", "lun_id": 0}],
                "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 2}], "disable_chap": true, "require_chap": false,
                "mutual_chap": false, "chap_group": 0, "header_digest": false, "data_digest": false}),
        ),
        ("iscsi_target_node_add_lun", json!({"name": TARGET, "bdev_name": "N0", "lun_id": 5})),
        ("iscsi_target_node_add_pg_ig_maps", json!({"name": TARGET, "pg_ig_maps": [{"pg_tag": 2, "ig_tag": 2}]})),
        (
            "iscsi_target_node_set_redirect",
            json!({"name": TARGET, "pg_tag": 1, "redirect_host": "10.0.0.9", "redirect_port": "3260"}),
        ),
        ("pollux_iscsi_target_node_set_access_state", json!({"name": TARGET, "pg_tag": 2, "access_state": "standby"})),
    ] {
        assert_eq!(ok(c, method, params).await, true, "{method}");
    }
}

const TARGET: &str = "iqn.2016-06.io.spdk:disk1";

#[test]
fn the_shapes_are_those_of_spdk() {
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        let groups = ok(&c, "iscsi_get_portal_groups", Value::Null).await;
        assert_eq!(groups[0], json!({"tag": 1, "portals": [{"host": "127.0.0.1", "port": "3260"}], "private": false}));
        assert_eq!(
            groups[1]["portals"],
            json!([{"host": "[::1]", "port": "3260"}, {"host": "0.0.0.0", "port": "3261"}])
        );
        let groups = ok(&c, "iscsi_get_initiator_groups", json!({})).await;
        assert_eq!(groups, json!([{"tag": 2, "initiators": ["ANY"], "netmasks": ["127.0.0.0/8"]}]));
        let targets = ok(&c, "iscsi_get_target_nodes", json!({})).await;
        let wanted = json!([{
            "name": TARGET, "alias_name": "d", "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 2}, {"pg_tag": 2, "ig_tag": 2}],
            "luns": [{"bdev_name": "M0", "lun_id": 0}, {"bdev_name": "N0", "lun_id": 5}], "queue_depth": 64,
            "disable_chap": true, "require_chap": false, "mutual_chap": false, "chap_group": 0,
            "header_digest": false, "data_digest": false,
        }]);
        assert_eq!(targets, wanted);
        assert_eq!(ok(&c, "scsi_get_devices", json!({})).await, json!([{"id": 1, "device_name": TARGET}]));
        let options = ok(&c, "iscsi_get_options", json!({})).await;
        assert_eq!((&options["nop_timeout"], &options["nop_in_interval"]), (&json!(30), &json!(5)));
        assert_eq!((&options["node_base"], &options["pdu_pool_size"]), (&json!("iqn.2016-06.io.spdk"), &json!(4096)));
        let connection = &ok(&c, "iscsi_get_connections", json!({})).await[0];
        assert_eq!(connection["target_node_name"], "disk1");
        assert_eq!(
            (&connection["state"], &connection["login_phase"]),
            (&json!("running"), &json!("full_feature_phase"))
        );
        assert_eq!((&connection["initiator_addr"], &connection["target_addr"]), (&json!("::1"), &json!("127.0.0.1")));
        let stats = json!({"invalid": 0, "running": 2, "exiting": 1, "exited": 0});
        assert_eq!(ok(&c, "iscsi_get_stats", json!({})).await, stats);
    });
}

#[test]
fn histograms_are_off_until_they_are_wanted() {
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        let name = json!({"name": TARGET});
        let (code, message) = call(&c, "iscsi_get_histogram", name.clone()).await.expect_err("off");
        assert!(code == -32602 && message.contains("not enabled"), "{message}");
        ok(&c, "iscsi_enable_histogram", json!({"name": TARGET, "enable": true})).await;
        let shown = ok(&c, "iscsi_get_histogram", name.clone()).await;
        assert_eq!(
            (&shown["granularity"], &shown["min_range"], &shown["max_range"]),
            (&json!(7), &json!(0), &json!(57))
        );
        // 58 ranges of 128 counts of 8 bytes.
        assert_eq!(shown["histogram"].as_str().unwrap().len(), (58_usize * 128 * 8).div_ceil(3) * 4);
        ok(&c, "iscsi_enable_histogram", json!({"name": TARGET, "enable": false})).await;
        assert!(call(&c, "iscsi_get_histogram", name).await.is_err());
    });
}

#[test]
fn logouts_are_asked_of_the_node() {
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        for (params, asked) in [
            (json!({"name": TARGET}), "request_logout 1 None"),
            (json!({"name": "disk1", "pg_tag": -1}), "request_logout 1 None"),
            (json!({"name": TARGET, "pg_tag": 2}), "request_logout 1 Some(2)"),
        ] {
            assert_eq!(ok(&c, "iscsi_target_node_request_logout", params).await, true);
            assert_eq!(c.control.node().calls.borrow().last().map(String::as_str), Some(asked));
        }
        assert!(call(&c, "iscsi_target_node_request_logout", json!({"name": "no"})).await.is_err());
    });
}

#[test]
fn what_is_wrong_is_said() {
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        let portal = |host: &str, port: &str| json!({"tag": 9, "portals": [{"host": host, "port": port}]});
        let target = |name: &str, bdev: &str| {
            json!({"name": name, "alias_name": "", "queue_depth": 0, "pg_ig_maps": [],
                "luns": [{"bdev_name": bdev, "lun_id": 0}]})
        };
        for (method, params, why) in [
            ("iscsi_create_portal_group", portal("localhost", "1"), "IP address"),
            ("iscsi_create_portal_group", portal("10.0.0.1", "0"), "port"),
            ("iscsi_create_portal_group", portal("127.0.0.1", "3260"), "portal '127.0.0.1:3260' already exists"),
            ("iscsi_create_portal_group", json!({"tag": 65536, "portals": []}), "65535"),
            ("iscsi_delete_portal_group", json!({"tag": 9}), "portal group '9' not found"),
            (
                "iscsi_create_initiator_group",
                json!({"tag": 3, "initiators": ["a b"], "netmasks": ["ANY"]}),
                "initiators[0]",
            ),
            (
                "iscsi_create_initiator_group",
                json!({"tag": 3, "initiators": ["ANY"], "netmasks": ["1.2.3/8"]}),
                "netmasks[0]",
            ),
            ("iscsi_create_target_node", target("disk1", "M0"), "already exists"),
            ("iscsi_create_target_node", target("disk2", "no"), "No such device"),
            ("iscsi_create_target_node", target("iqn.x", "M0"), "iSCSI name"),
            (
                "iscsi_target_node_add_lun",
                json!({"name": TARGET, "bdev_name": "M0", "lun_id": 5}),
                "LUN '5' already exists",
            ),
            ("iscsi_target_node_add_lun", json!({"name": TARGET, "bdev_name": "M0", "lun_id": 256}), "lun_id"),
            ("iscsi_target_node_set_auth", json!({"name": TARGET, "mutual_chap": true}), "mutual_chap"),
            (
                "iscsi_target_node_set_redirect",
                json!({"name": TARGET, "pg_tag": 1, "redirect_host": "::1"}),
                "together",
            ),
            ("iscsi_create_auth_group", json!({"tag": 2, "secrets": [{"user": "u", "secret": "short"}]}), "12 to 128"),
            (
                "iscsi_auth_group_add_secret",
                json!({"tag": 1, "user": "u", "secret": SECRET}),
                "user 'u' already exists",
            ),
            ("iscsi_delete_target_node", json!({"name": "iqn.2016-06.io.spdk:no"}), "not found"),
            ("iscsi_set_options", json!({"first_burst_length": 100}), "first_burst_length"),
            ("iscsi_set_options", json!({"no_such_option": 100}), "no_such_option"),
        ] {
            let (code, message) = call(&c, method, params).await.expect_err(method);
            assert!(
                code == -32602 && message.contains("Invalid parameters") && message.contains(why),
                "{method}: {message}"
            );
        }
    });
}

/// What the caller is told, over all methods that could tell a secret.
async fn told(c: &Rc<Context<FakeNode>>, caller: Caller) -> String {
    let mut all = String::new();
    for (method, params) in [
        ("iscsi_get_auth_groups", json!({})),
        ("framework_get_config", json!({"name": "iscsi"})),
        ("iscsi_get_options", json!({})),
        ("iscsi_get_target_nodes", json!({})),
    ] {
        let request = json!({"id": 1, "method": method, "params": params}).to_string();
        let (Answered::Reply(text) | Answered::Close(text)) = answer(c, caller, request.as_bytes()).await;
        assert!(!text.contains("\"error\""), "{text}");
        all.push_str(&text);
    }
    all
}

#[test]
fn only_root_sees_secrets() {
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        let shown = told(&c, Caller::Admin).await;
        assert!(shown.matches(SECRET).count() == 2 && shown.matches("another-secret").count() == 2, "{shown}");
        let shown = told(&c, Caller::Operator).await;
        assert!(!shown.contains(SECRET) && !shown.contains("another-secret"), "{shown}");
        assert!(shown.contains(r#""user":"u","secret":"********","muser":"m""#), "{shown}");
        // A refusal does not repeat what was given.
        let again = json!({"tag": 1, "secrets": [{"user": "u", "secret": SECRET}]});
        let (_, message) = call(&c, "iscsi_create_auth_group", again).await.expect_err("exists");
        assert!(!message.contains(SECRET), "{message}");
    });
}

async fn config(c: &Rc<Context<FakeNode>>) -> Vec<Value> {
    ok(c, "framework_get_config", json!({"name": "iscsi"})).await.as_array().unwrap().clone()
}

#[test]
fn a_saved_configuration_makes_the_same_targets() {
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        let saved = config(&c).await;
        let methods: Vec<&str> = saved.iter().map(|call| call["method"].as_str().unwrap()).collect();
        assert_eq!(methods.len(), 9, "{methods:?}");
        let again = stopped_on(&MemFile::new(Fuse::of(u64::MAX)), &c.control.node().world);
        // As spdk-rpc does it: options may be set before the node has started.
        ok(&again, "iscsi_set_options", saved[0]["params"].clone()).await;
        again.start().await;
        ok(&again, "bdev_malloc_create", json!({"name": "M0", "num_blocks": 64, "block_size": 512})).await;
        ok(&again, "bdev_null_create", json!({"name": "N0", "num_blocks": 64, "block_size": 4096})).await;
        for entry in &saved[1..] {
            ok(&again, entry["method"].as_str().unwrap(), entry["params"].clone()).await;
        }
        assert_eq!(config(&again).await, saved);
    });
}

#[test]
fn reservations_are_shown() {
    use crate::volume::reserve::{Nexus, Op, Type};
    on_runtime(async {
        let c = node().await;
        furnish(&c).await;
        let id = c.control.bdev("M0").unwrap().id();
        let who = Nexus { initiator: b"\x45\0\0\x08iqn.a\0\0\0"[..].into(), target: 1, port: 2 };
        let register = Op::RegisterIgnore { new_key: 0xabc, aptpl: false, ports: None };
        c.control.reserve(id, &who, &register).await.unwrap();
        let reserve = Op::Reserve { key: 0xabc, kind: Type::ExclusiveAccess };
        c.control.reserve(id, &who, &reserve).await.unwrap();
        let shown = ok(&c, "pollux_bdev_get_reservations", json!({"name": "M0"})).await;
        let registrant = json!({"initiator": "iqn.a", "target_id": 1, "relative_port": 2,
            "key": "0x0000000000000abc", "holder": true});
        assert_eq!(shown["registrants"], json!([registrant]));
        assert_eq!((&shown["type"], &shown["generation"]), (&json!("exclusive_access"), &json!(1)));
        assert_eq!((&shown["persist"], &shown["reserve6"]), (&json!(false), &Value::Null));
    });
}
