//! NVMe controllers that the node drives, as SPDK's clients know them.

use super::*;

#[test]
fn controllers_are_attached_listed_saved_and_detached() {
    on_runtime(async {
        let c = node().await;
        let attach = |name: &str| json!({"name": name, "trtype": "PCIe", "traddr": "/disk", "prchk_reftag": false});
        assert_eq!(ok(&c, "bdev_nvme_attach_controller", attach("Nvme0")).await, json!(["Nvme0n1", "Nvme0n2"]));
        ok(&c, "bdev_null_create", json!({"name": "N", "block_size": 512, "num_blocks": 8})).await;
        let bdev = &ok(&c, "bdev_get_bdevs", json!({"name": "Nvme0n2"})).await[0];
        assert_eq!(bdev["product_name"], "NVMe disk");
        let specific = &bdev["driver_specific"]["nvme"][0];
        assert_eq!((&specific["pci_address"], &specific["ns_data"]["id"]), (&json!("/disk"), &json!(2)));
        // Only one namespace, under a name that is the caller's.
        let exact = json!({"name": "flash", "trtype": "pcie", "traddr": "/two", "nsid": 0});
        assert_eq!(ok(&c, "bdev_nvme_attach_controller", exact.clone()).await, json!(["flash"]));
        let all = ok(&c, "bdev_nvme_get_controllers", json!({})).await;
        assert_eq!(all[0]["name"], "Nvme0");
        assert_eq!(all[0]["ctrlrs"][0]["state"], "enabled");
        assert_eq!(all[0]["ctrlrs"][0]["trid"], json!({"trtype": "PCIe", "traddr": "/disk"}));
        assert_eq!(all[1]["name"], "flash");
        let health = ok(&c, "bdev_nvme_get_controller_health_info", json!({"name": "Nvme0"})).await;
        assert_eq!((&health["host_read_commands"], &health["temperature_celsius"]), (&json!(20), &json!(27)));
        // One call for each controller makes all of it again.
        let config = ok(&c, "framework_get_config", json!({"name": "bdev"})).await;
        let calls = config.as_array().unwrap().iter().filter(|m| m["method"] == "bdev_nvme_attach_controller");
        let params: Vec<&Value> = calls.map(|m| &m["params"]).collect();
        assert_eq!(params[0], &json!({"trtype": "PCIe", "traddr": "/disk", "name": "Nvme0"}));
        assert_eq!(params[1], &json!({"trtype": "PCIe", "traddr": "/two", "nsid": 0, "name": "flash"}));
        assert_eq!(params.len(), 2);
        assert_eq!(ok(&c, "bdev_nvme_detach_controller", json!({"name": "Nvme0"})).await, json!(true));
        assert_eq!(ok(&c, "bdev_nvme_get_controllers", json!({})).await.as_array().unwrap().len(), 1);
    });
}

#[test]
fn refusals_name_their_reason() {
    on_runtime(async {
        let c = node().await;
        let attach = |traddr: &str, trtype: &str| json!({"name": "Nvme0", "trtype": trtype, "traddr": traddr});
        ok(&c, "bdev_nvme_attach_controller", attach("/disk", "PCIe")).await;
        for (method, params, code, part) in [
            ("bdev_nvme_attach_controller", attach("/disk", "PCIe"), -114, "already exists"),
            ("bdev_nvme_attach_controller", attach("/disk", "TCP"), -95, "PCIe is"),
            (
                "bdev_nvme_attach_controller",
                json!({"name": "X", "trtype": "PCIe", "traddr": "/none"}),
                -19,
                "No such device",
            ),
            ("bdev_nvme_detach_controller", json!({"name": "Y"}), -19, "No such device"),
            ("bdev_nvme_detach_controller", json!({"name": "Nvme0", "traddr": "/two"}), -19, "No such device"),
            ("bdev_nvme_get_controllers", json!({"name": "Y"}), -19, "No such device"),
            ("bdev_nvme_get_controller_health_info", json!({"name": "Y"}), -19, "No such device"),
            ("bdev_nvme_get_controller_health_info", json!({}), -22, "name"),
        ] {
            let (got, message) = call(&c, method, params).await.unwrap_err();
            assert!(got == code && message.contains(part), "{method}: {got} {message}");
        }
    });
}
