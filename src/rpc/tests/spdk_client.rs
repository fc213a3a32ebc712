//! The public client itself (`spdk-rpc` of the package `spdk` 26.9), against our socket on the data path in memory. Where it is
//! not installed these tests say so and pass.

use super::socket::{Served, serve};
use super::*;
use crate::rpc::server::Limits;
use std::process::{Command, Stdio};

/// Runs the client; standard output, or what it said when it failed.
fn spdk_rpc(served: &Served, args: &[&str], stdin: &str) -> Result<String, String> {
    let mut command = Command::new("spdk-rpc");
    command.arg("-s").arg(&served.path).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("spdk-rpc runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), stdin.as_bytes()).expect("its input");
    let output = child.wait_with_output().expect("spdk-rpc ends");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stdout) + &text(&output.stderr)) }
}

fn installed() -> bool {
    let found = Command::new("spdk-rpc").arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("SKIPPED: spdk-rpc is not installed (pip install spdk==26.9)");
    }
    found
}

/// Runs several calls by one process of the client; what each of them said. All must work.
fn spdk_rpcs(served: &Served, calls: &[&str]) -> Vec<String> {
    let path = served.path.to_str().expect("a path in UTF-8");
    let lines: Vec<String> = calls.iter().map(|call| format!("-s {path} {call}\n")).collect();
    let mut command = Command::new("spdk-rpc");
    command.arg("--server").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().expect("spdk-rpc runs");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), lines.concat().as_bytes())
        .expect("its input");
    let output = child.wait_with_output().expect("spdk-rpc ends");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut said = Vec::new();
    let mut rest = output.as_str();
    for call in calls {
        let (text, after) = rest.split_once("**STATUS=").unwrap_or_else(|| panic!("{call}: no answer: {rest}"));
        assert!(after.starts_with('0'), "{call}: {text}");
        said.push(text.to_owned());
        rest = after[1..].trim_start();
    }
    assert_eq!(rest, "", "more was said than asked");
    said
}

/// A script of client calls; each must work. `>` starts what the output must contain.
const LIFE: &str = "
spdk_get_version > SPDK v26.09
rpc_get_methods > nvmf_create_subsystem
bdev_malloc_create -b M0 64 512 > M0
bdev_null_create N0 64 4096 > N0
bdev_null_create N1 64 4096 > N1
bdev_aio_create /two A0 512 > A0
bdev_uring_create /disk U0 4096 > U0
bdev_delay_create -b N0 -d D0 -r 10 -t 20 -w 10 -n 20 > D0
bdev_delay_update_latency D0 avg_read 15
bdev_error_create A0
bdev_error_inject_error EE_A0 read failure -n 3
bdev_error_inject_error EE_A0 write corrupt_data -n 1 -o 5 -v 7
bdev_error_inject_error EE_A0 all pending -n 2
bdev_error_resume_pending EE_A0
bdev_error_inject_error EE_A0 clear failure
bdev_lvol_create_lvstore U0 lvs > -
bdev_lvol_create -l lvs vol 512 -t > -
bdev_lvol_get_lvstores > total_data_clusters
bdev_lvol_get_lvols > lvs/vol
bdev_lvol_resize lvs/vol 256
bdev_get_bdevs -b lvs/vol > Logical Volume
bdev_get_bdevs > Error Injection Disk
bdev_wait_for_examine
bdev_examine -b M0
nvmf_create_transport -t TCP -i 131072 -c 16384
nvmf_get_transports > in_capsule_data_size
nvmf_create_subsystem nqn.2016-06.io.spdk:cnode1 -s POLLUX1 -m 8
nvmf_subsystem_add_ns nqn.2016-06.io.spdk:cnode1 lvs/vol
nvmf_subsystem_add_ns nqn.2016-06.io.spdk:cnode1 M0 -n 5
nvmf_subsystem_add_ns nqn.2016-06.io.spdk:cnode1 N1 -n 6 -i
nvmf_ns_add_host nqn.2016-06.io.spdk:cnode1 6 nqn.2016-06.io.spdk:seer
nvmf_get_subsystems > io.spdk:seer
nvmf_subsystem_add_listener nqn.2016-06.io.spdk:cnode1 -t tcp -a 127.0.0.1 -s 4420
nvmf_subsystem_add_listener discovery -t tcp -a 127.0.0.1 -s 8009
nvmf_subsystem_add_host nqn.2016-06.io.spdk:cnode1 nqn.2016-06.io.spdk:host1
nvmf_subsystem_allow_any_host --allow-any-host nqn.2016-06.io.spdk:cnode1
nvmf_get_subsystems > POLLUX1
nvmf_subsystem_get_listeners nqn.2016-06.io.spdk:cnode1 > IPv4
nvmf_subsystem_get_controllers nqn.2016-06.io.spdk:cnode1 > cntlid
nvmf_subsystem_get_qpairs nqn.2016-06.io.spdk:cnode1 > peer_address
nvmf_get_stats > poll_groups
iscsi_set_options -q 64 -i -n 4 -o 9
iscsi_get_options > : 9,
iscsi_create_portal_group 1 127.0.0.1:3260
iscsi_create_portal_group -w -p 2 127.0.0.1:3261
iscsi_start_portal_group 2
iscsi_get_portal_groups > : true
iscsi_create_initiator_group 2 ANY 127.0.0.0/8
iscsi_initiator_group_add_initiators 2 -n iqn.2026-01.io.pollux:h -m 10.0.0.0/8
iscsi_get_initiator_groups > 10.0.0.0/8
iscsi_initiator_group_remove_initiators 2 -n iqn.2026-01.io.pollux:h -m 10.0.0.0/8
iscsi_create_target_node disk1 d lvs/vol:0 1:2 64 -d
iscsi_target_node_add_lun -i 1 iqn.2016-06.io.spdk:disk1 M0
iscsi_get_target_nodes > lun_id
iscsi_target_node_add_pg_ig_maps iqn.2016-06.io.spdk:disk1 2:2
iscsi_target_node_set_redirect iqn.2016-06.io.spdk:disk1 1 -a 10.0.0.9 -p 3260
iscsi_target_node_set_redirect iqn.2016-06.io.spdk:disk1 1
iscsi_target_node_request_logout iqn.2016-06.io.spdk:disk1 -t 1
iscsi_create_auth_group 1
iscsi_auth_group_add_secret 1 -u u -s twelve-or-more -m m -r another-twelve
iscsi_get_auth_groups > another-twelve
iscsi_target_node_set_auth iqn.2016-06.io.spdk:disk1 -g 1 -r -m
iscsi_portal_group_set_auth 1 -g 1 -r
iscsi_set_discovery_auth -g 1 -r
iscsi_get_connections > full_feature_phase
iscsi_get_stats > running
iscsi_enable_histogram --histogram iqn.2016-06.io.spdk:disk1
iscsi_get_histogram iqn.2016-06.io.spdk:disk1 > granularity
scsi_get_devices > disk1
nvmf_discovery_add_referral -t tcp -a 10.0.0.2 -s 8009
nvmf_discovery_get_referrals > 10.0.0.2
bdev_get_iostat --names M0 > num_read_ops
bdev_get_iostat -c --names M0 > channels
bdev_reset_iostat
framework_get_reactors > lw_threads
framework_get_subsystems > nvmf
framework_get_scheduler > static
thread_get_stats > nvmf_tgt_poll_group_000
thread_get_pollers > run_count
thread_get_io_channels > bdev_M0
iobuf_get_stats > small_pool
log_get_flags > nvmf
log_set_level NOTICE
log_get_level > NOTICE
notify_get_types > bdev_resize
notify_get_notifications > bdev_register
save_config > nvmf_subsystem_add_listener
iscsi_target_node_remove_pg_ig_maps iqn.2016-06.io.spdk:disk1 2:2
iscsi_auth_group_remove_secret 1 -u u
iscsi_delete_auth_group 1
iscsi_delete_target_node iqn.2016-06.io.spdk:disk1
iscsi_delete_initiator_group 2
iscsi_delete_portal_group 1
nvmf_discovery_remove_referral -t tcp -a 10.0.0.2 -s 8009
nvmf_subsystem_remove_host nqn.2016-06.io.spdk:cnode1 nqn.2016-06.io.spdk:host1
nvmf_subsystem_allow_any_host --no-allow-any-host nqn.2016-06.io.spdk:cnode1
nvmf_subsystem_remove_listener nqn.2016-06.io.spdk:cnode1 -t tcp -a 127.0.0.1 -s 4420
nvmf_ns_remove_host nqn.2016-06.io.spdk:cnode1 6 nqn.2016-06.io.spdk:seer
nvmf_subsystem_remove_ns nqn.2016-06.io.spdk:cnode1 5
nvmf_delete_subsystem nqn.2016-06.io.spdk:cnode1
bdev_lvol_rename lvs/vol vol2
bdev_lvol_set_read_only lvs/vol2
bdev_lvol_delete lvs/vol2
bdev_lvol_rename_lvstore lvs lvs2
bdev_lvol_delete_lvstore -l lvs2
bdev_uring_rescan U0
bdev_uring_delete U0
bdev_error_delete EE_A0
bdev_aio_rescan A0
bdev_aio_delete A0
bdev_delay_delete D0
bdev_null_resize N0 128
bdev_null_delete N0
bdev_null_delete N1
bdev_malloc_delete M0
bdev_get_bdevs > []
";

#[test]
fn the_client_drives_the_life_of_everything() {
    if !installed() {
        return;
    }
    let served = serve(Limits::default());
    let lines: Vec<(&str, &str)> =
        LIFE.lines().filter(|l| !l.is_empty()).map(|l| l.split_once(" > ").unwrap_or((l, ""))).collect();
    let calls: Vec<&str> = lines.iter().map(|(call, _)| *call).collect();
    for ((call, wanted), said) in lines.iter().zip(spdk_rpcs(&served, &calls)) {
        assert!(said.contains(wanted), "{call}: {said}");
    }
}

#[test]
fn the_client_saves_and_loads_a_configuration() {
    if !installed() {
        return;
    }
    let first = serve(Limits::default());
    let calls = [
        "bdev_malloc_create -b M0 64 512",
        "bdev_delay_create -b M0 -d D0 -r 10 -t 20 -w 10 -n 20",
        "nvmf_create_transport -t TCP",
        "nvmf_create_subsystem nqn.2016-06.io.spdk:cnode1 -s POLLUX1 -m 8 -a",
        "nvmf_subsystem_add_ns nqn.2016-06.io.spdk:cnode1 D0",
        "nvmf_subsystem_add_listener nqn.2016-06.io.spdk:cnode1 -t tcp -a 127.0.0.1 -s 4420",
        "iscsi_set_options -q 64 -i",
        "iscsi_create_portal_group 1 127.0.0.1:3260",
        "iscsi_create_initiator_group 2 ANY 127.0.0.0/8",
        "iscsi_create_auth_group 1",
        "iscsi_auth_group_add_secret 1 -u u -s twelve-or-more",
        "iscsi_create_target_node disk1 d D0:0 1:2 64 -r -g 1",
    ];
    spdk_rpcs(&first, &calls);
    let saved = spdk_rpc(&first, &["save_config"], "").expect("it is saved");
    let second = serve(Limits::default());
    let said = spdk_rpc(&second, &["load_config"], &saved).expect("it is loaded");
    assert!(!said.contains("skipped"), "{said}");
    assert!(saved.contains("POLLUX1"), "{saved}");
    assert_eq!(spdk_rpc(&second, &["save_config"], "").expect("it is saved again"), saved);
}

/// What SPDK 26.09 itself saves for a target like ours: calls that tune nothing here are among them.
#[test]
fn a_configuration_saved_by_spdk_loads() {
    if !installed() {
        return;
    }
    let call = |method: &str, params: Value| json!({"method": method, "params": params});
    let nqn = "nqn.2016-06.io.spdk:cnode1";
    let address = json!({"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4420"});
    let config = json!({"subsystems": [
        {"subsystem": "scheduler", "config": [call("framework_set_scheduler", json!({"name": "static"}))]},
        {"subsystem": "sock", "config": [
            call("sock_set_default_impl", json!({"impl_name": "posix"})),
            call("sock_impl_set_options", json!({"impl_name": "posix", "recv_buf_size": 2_097_152})),
        ]},
        {"subsystem": "iobuf", "config": [call("iobuf_set_options", json!({"small_pool_count": 8192}))]},
        {"subsystem": "keyring", "config": []},
        {"subsystem": "accel", "config": [call("accel_set_options", json!({"task_count": 2048}))]},
        {"subsystem": "bdev", "config": [
            call("bdev_set_options", json!({"bdev_io_pool_size": 65535, "bdev_auto_examine": true})),
            call("bdev_raid_set_options", json!({"process_window_size_kb": 1024})),
            call("bdev_malloc_create", json!({"name": "M0", "num_blocks": 16384, "block_size": 4096,
                "physical_block_size": 4096, "uuid": "bed609dd-6df8-44f4-86aa-052910fd2c23", "optimal_io_boundary": 0,
                "md_size": 0, "dif_type": 0, "dif_is_head_of_md": false, "dif_pi_format": 0, "numa_id": -1})),
            call("bdev_null_create", json!({"name": "N0", "num_blocks": 131_072, "block_size": 512,
                "physical_block_size": 512, "md_size": 0, "dif_type": 0, "dif_is_head_of_md": false, "dif_pi_format": 0,
                "uuid": "8e9fece7-7e0d-4ec6-8b3c-b68323a91456", "preferred_write_granularity": 0,
                "preferred_write_alignment": 0, "optimal_write_size": 0, "preferred_unmap_granularity": 0,
                "preferred_unmap_alignment": 0})),
            call("bdev_nvme_set_options", json!({"multipath_opts": {"policy": "active_passive"}})),
            call("bdev_nvme_set_hotplug", json!({"period_us": 100_000, "enable": false})),
            call("bdev_aio_create", json!({"name": "A0", "block_size": 4096, "filename": "/disk", "readonly": false,
                "fallocate": false, "uuid": "bc317f36-9324-4b9e-b1d1-075a317e8596", "nowait": false})),
            json!({"method": "bdev_wait_for_examine"}),
        ]},
        {"subsystem": "nvmf", "config": [
            call("nvmf_set_config", json!({"discovery_filters": [], "dup_host_policy": "allow"})),
            call("nvmf_set_max_subsystems", json!({"max_subsystems": 1024})),
            call("nvmf_set_crdt", json!({"crdt1": 0, "crdt2": 0, "crdt3": 0})),
            call("nvmf_create_transport", json!({"trtype": "TCP", "max_queue_depth": 128,
                "max_io_qpairs_per_ctrlr": 127, "in_capsule_data_size": 4096, "max_io_size": 131_072,
                "max_aq_depth": 128, "iobuf_small_cache_size": 4_294_967_295u32, "dif_insert_or_strip": false,
                "zcopy": false, "c2h_success": true, "sock_priority": 0, "abort_timeout_sec": 1, "ack_timeout": 0,
                "data_wr_pool_size": 0, "disable_command_passthru": false, "kas": 100, "min_kato": 10000})),
            call("nvmf_create_subsystem", json!({"nqn": nqn, "allow_any_host": true, "serial_number": "SPDK1",
                "model_number": "SPDK bdev Controller", "max_namespaces": 8, "min_cntlid": 1, "max_cntlid": 65519,
                "ana_reporting": false, "dmrsl": 2_097_152, "wzsl": 12, "passthrough": false, "enable_nssr": false})),
            call("nvmf_subsystem_add_ns", json!({"nqn": nqn, "namespace": {"nsid": 1, "bdev_name": "M0",
                "nguid": "310B497DDF974DEDA02A0E3A4FD8F808", "uuid": "310b497d-df97-4ded-a02a-0e3a4fd8f808",
                "no_auto_visible": false}})),
            call("nvmf_subsystem_add_listener",
                json!({"nqn": nqn, "listen_address": address, "secure_channel": false})),
        ]},
    ]});
    let served = serve(Limits::default());
    let said = spdk_rpc(&served, &["load_config"], &config.to_string()).expect("it loads");
    assert!(!said.contains("skipped"), "{said}");
    let shown = spdk_rpc(&served, &["nvmf_get_subsystems"], "").expect("it is shown");
    assert!(shown.contains("310B497DDF974DEDA02A0E3A4FD8F808"), "{shown}");
}

#[test]
fn the_client_shows_errors_and_sends_batches() {
    if !installed() {
        return;
    }
    let served = serve(Limits::default());
    let error = spdk_rpc(&served, &["bdev_get_bdevs", "-b", "nosuch"], "").expect_err("it is an error");
    assert!(error.contains("No such device: bdev 'nosuch'") && error.contains("-19"), "{error}");
    // Its batch mode: one array there, one array back.
    let batch = "bdev_malloc_create -b B0 64 512\nbdev_malloc_create -b B1 64 512\n";
    spdk_rpc(&served, &["--batch-mode"], batch).expect("the batch works");
    let shown = spdk_rpc(&served, &["bdev_get_bdevs"], "").expect("it is shown");
    assert!(shown.contains("B0") && shown.contains("B1"), "{shown}");
}
