//! Counters of the running daemon.

use std::os::unix::ffi::OsStrExt;

use cas::remote::PeerCounts;
use proto::v1;

use super::{Answer, Host, status::of_store};
use crate::host::{disk_bytes, memory_rss_bytes, open_files};

impl Host {
    pub(super) fn stats(&self, _: v1::StatsRequest) -> Answer<v1::StatsReply> {
        let requests = self.mounts.requests().into_iter();
        Ok(v1::StatsReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: self.elapsed_us(self.started_us) / 1000,
            memory_rss_bytes: memory_rss_bytes(),
            state_dir: self.state_dir.as_os_str().as_bytes().to_vec(),
            store: Some(self.store_stats()?),
            log: Some(self.log_stats()),
            sessions: self.engine.sessions().len() as u64,
            mounts: self.mounts.list().len() as u64,
            known_inodes: self.engine.sessions().iter().map(|session| session.known.len() as u64).sum(),
            open_files: open_files(),
            backing_bytes: self.mounts.backing_bytes(),
            remote: self.remote_stats()?,
            peers: self.peer_stats(),
            fuse_requests: requests.map(|(name, count)| (name.to_owned(), count)).collect(),
        })
    }

    fn store_stats(&self) -> Answer<v1::StoreStats> {
        let stats = self.engine.store().stats().map_err(of_store)?;
        let store_dir = self.state_dir.join("store");
        let databases = ["index.redb", "catalogue.redb"];
        Ok(v1::StoreStats {
            snapshots: stats.snapshots,
            objects: stats.objects,
            packs: stats.packs,
            pack_bytes: stats.pack_bytes,
            index_bytes: databases.iter().map(|name| disk_bytes(&store_dir.join(name))).sum(),
        })
    }

    fn remote_stats(&self) -> Answer<Option<v1::RemoteStats>> {
        let counts = self.engine.store().remote_counts().map_err(of_store)?;
        Ok(counts.map(|counts| v1::RemoteStats {
            hits: counts.hits,
            misses: counts.misses,
            requests: counts.requests,
            failures: counts.failures,
            bytes: counts.bytes,
            p50_us: counts.p50_us,
            p99_us: counts.p99_us,
            cached_bytes: counts.cached_bytes,
            cache_bytes_max: counts.cache_bytes_max,
        }))
    }

    fn peer_stats(&self) -> Vec<v1::PeerStats> {
        let counts = self.engine.store().peer_counts().into_iter();
        let stats = |counts: PeerCounts| v1::PeerStats {
            address: counts.address,
            hits: counts.hits,
            bytes: counts.bytes,
            misses: counts.misses,
            failures: counts.failures,
            down: counts.down.unwrap_or_default(),
        };
        counts.map(stats).collect()
    }

    fn log_stats(&self) -> v1::LogStats {
        let durability = self.engine.durability();
        let log = &durability.log;
        let (live, dead) = durability.pool.counts();
        v1::LogStats {
            position: log.position(),
            synced_position: log.synced(),
            bytes: log.position().saturating_sub(log.start()),
            segments: (live + dead) as u64,
            segment_bytes: disk_bytes(&self.state_dir.join("segments")),
        }
    }
}
