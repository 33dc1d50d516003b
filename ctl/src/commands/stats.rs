//! `aetherctl stats`: counters of the running daemon.

use std::collections::BTreeMap;

use proto::v1::{PeerStats, StatsReply, StatsRequest};
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::json;
use crate::quote::quoted;
use crate::text::{duration, rendered, size, table};

/// Show counters of the running daemon
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  aetherctl stats\n  aetherctl --json stats | jq .memory_rss_bytes")]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, context: &mut Context) -> Result<(), Failure> {
    let stats = context.connect().await?.stats(StatsRequest {}).await?.into_inner();
    if context.json {
        return context.document(&document(&stats));
    }
    let mut shown = table(&[]);
    for (label, value) in rows(&stats) {
        shown.add_row(vec![label, value]);
    }
    context.line(&rendered(shown))
}

fn document(stats: &StatsReply) -> Value {
    let store = stats.store.unwrap_or_default();
    let log = stats.log.unwrap_or_default();
    let mut object = json!({
        "version": stats.version,
        "pid": stats.pid,
        "uptime_ms": stats.uptime_ms,
        "memory_rss_bytes": stats.memory_rss_bytes,
        "sessions": stats.sessions,
        "mounts": stats.mounts,
        "known_inodes": stats.known_inodes,
        "open_files": stats.open_files,
        "backing_bytes": stats.backing_bytes,
        "store": {
            "snapshots": store.snapshots,
            "objects": store.objects,
            "packs": store.packs,
            "pack_bytes": store.pack_bytes,
            "index_bytes": store.index_bytes,
        },
        "log": {
            "position": log.position,
            "synced_position": log.synced_position,
            "bytes": log.bytes,
            "segments": log.segments,
            "segment_bytes": log.segment_bytes,
        },
        "remote": stats.remote.map(|remote| json!({
            "hits": remote.hits,
            "misses": remote.misses,
            "requests": remote.requests,
            "failures": remote.failures,
            "bytes": remote.bytes,
            "p50_us": remote.p50_us,
            "p99_us": remote.p99_us,
            "cached_bytes": remote.cached_bytes,
            "cache_bytes_max": remote.cache_bytes_max,
        })),
        "peers": stats.peers.iter().map(peer).collect::<Vec<_>>(),
        "fuse_requests": stats.fuse_requests,
    });
    json::put_bytes(&mut object, "state_dir", &stats.state_dir);
    object
}

fn peer(peer: &PeerStats) -> Value {
    json!({
        "address": peer.address,
        "hits": peer.hits,
        "bytes": peer.bytes,
        "misses": peer.misses,
        "failures": peer.failures,
        "down": if peer.down.is_empty() { Value::Null } else { peer.down.clone().into() },
    })
}

fn peer_rows(peer: &PeerStats) -> Vec<(String, String)> {
    let came = format!("{} objects, {}", peer.hits, size(peer.bytes));
    let not = format!("{} not there, {} failed", peer.misses, peer.failures);
    let mut rows = vec![(format!("peer {}", peer.address), format!("{came}; {not}"))];
    if !peer.down.is_empty() {
        rows.push((String::new(), format!("left alone for a while: {}", peer.down)));
    }
    rows
}

fn rows(stats: &StatsReply) -> Vec<(String, String)> {
    let store = stats.store.unwrap_or_default();
    let log = stats.log.unwrap_or_default();
    let mut rows = vec![
        ("version".to_string(), stats.version.clone()),
        (
            "process".to_string(),
            format!("{}, up {}", stats.pid, duration(stats.uptime_ms.saturating_mul(1000))),
        ),
        ("memory".to_string(), size(stats.memory_rss_bytes)),
        ("state".to_string(), quoted(&stats.state_dir)),
        ("sessions".to_string(), format!("{}, {} mounts", stats.sessions, stats.mounts)),
        ("known inodes".to_string(), stats.known_inodes.to_string()),
        ("open files".to_string(), stats.open_files.to_string()),
        ("snapshots".to_string(), store.snapshots.to_string()),
        ("store".to_string(), format!("{} objects", store.objects)),
        ("packs".to_string(), format!("{}, {}", store.packs, size(store.pack_bytes))),
        ("index".to_string(), size(store.index_bytes)),
        (
            "log".to_string(),
            format!("{}, position {}, synced to {}", size(log.bytes), log.position, log.synced_position),
        ),
        ("segments".to_string(), format!("{}, {}", log.segments, size(log.segment_bytes))),
    ];
    if stats.backing_bytes > 0 {
        rows.push(("passed through".to_string(), size(stats.backing_bytes)));
    }
    if let Some(remote) = stats.remote {
        rows.push((
            "cache".to_string(),
            format!("{} of {}", size(remote.cached_bytes), size(remote.cache_bytes_max)),
        ));
        rows.push(("cache reads".to_string(), format!("{} hits, {} misses", remote.hits, remote.misses)));
        let fetched =
            format!("{} in {} requests, {} failed", size(remote.bytes), remote.requests, remote.failures);
        rows.push(("fetched".to_string(), fetched));
        let latency = format!("p50 {}, p99 {}", duration(remote.p50_us), duration(remote.p99_us));
        rows.push(("fetch latency".to_string(), latency));
    }
    rows.extend(stats.peers.iter().flat_map(peer_rows));
    let requests: BTreeMap<_, _> = stats.fuse_requests.iter().collect();
    rows.extend(
        requests.into_iter().map(|(operation, count)| (format!("fuse {operation}"), count.to_string())),
    );
    rows
}
