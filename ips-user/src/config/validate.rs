//! What the types of the configuration cannot say: values that cannot be, alone or together.

use ips_common::{MAX_WORKERS, MarkLayout, hint_slack};

use super::{Config, ConfigError, MEMORY_LEAST};
use crate::decode::{ChecksumMode, DecodeOptions};
use crate::exception::Cause;
use crate::health::HEARTBEAT;
use crate::sys::sandbox::Account;

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |key, message: String| Err(ConfigError::Invalid { key, message });
        let name_fits = (1..=15).contains(&self.name.len())
            && self
                .name
                .starts_with(|first: char| first.is_ascii_alphabetic())
            && self
                .name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !name_fits {
            return invalid(
                "name",
                format!(
                    "{:?} must be 1 to 15 letters, digits or dashes, a letter first",
                    self.name
                ),
            );
        }
        for (index, interface) in self.interfaces.iter().enumerate() {
            if interface.is_empty() || interface.len() > 15 || interface.contains(['/', ' ']) {
                return invalid("interfaces", format!("{interface:?} is no interface name"));
            }
            if self.interfaces[..index].contains(interface) {
                return invalid("interfaces", format!("{interface:?} is listed twice"));
            }
        }
        if let Err(message) = DecodeOptions::new(&self.engine, ChecksumMode::Verify) {
            return invalid("engine", message);
        }
        let workers = self.worker_count();
        if workers > MAX_WORKERS {
            return invalid(
                "workers.count",
                format!("at most {MAX_WORKERS}, not {workers}"),
            );
        }
        if let Err(error) = MarkLayout::new(self.steering.mark_mask, workers) {
            return invalid("steering.mark_mask", error.to_string());
        }
        if u32::from(self.queue.first) + workers > u32::from(u16::MAX) {
            return invalid(
                "queue.first",
                format!(
                    "{workers} workers and a backup from {} on would pass 65535",
                    self.queue.first
                ),
            );
        }
        if !(-20..=19).contains(&self.workers.nice) {
            return invalid(
                "workers.nice",
                format!("-20 to 19, not {}", self.workers.nice),
            );
        }
        if self.workers.memory_max != 0
            && !(MEMORY_LEAST..=1 << 44).contains(&self.workers.memory_max)
        {
            return invalid(
                "workers.memory_max",
                format!(
                    "0 for no bound, or {MEMORY_LEAST} to {}, not {}",
                    1_u64 << 44,
                    self.workers.memory_max
                ),
            );
        }
        if let Err(error) = Account::named(&self.sandbox.user) {
            return invalid("sandbox.user", error.to_string());
        }
        if !(1..=1024).contains(&self.queue.batch) {
            return invalid(
                "queue.batch",
                format!("1 to 1024, not {}", self.queue.batch),
            );
        }
        if self.queue.length == 0 {
            return invalid("queue.length", "must be at least 1".into());
        }
        if !(1..=86_400).contains(&self.rules.compile_seconds) {
            return invalid(
                "rules.compile_seconds",
                format!("1 to 86400, not {}", self.rules.compile_seconds),
            );
        }
        if self.queue.copy_range < 128 {
            return invalid(
                "queue.copy_range",
                format!(
                    "at least 128 bytes (the headers), not {}",
                    self.queue.copy_range
                ),
            );
        }
        if self.steering.stale_ms < 20 {
            return invalid(
                "steering.stale_ms",
                format!(
                    "at least 20 (workers stamp every {} ms), not {}",
                    HEARTBEAT.as_millis(),
                    self.steering.stale_ms
                ),
            );
        }
        const HOUR_MS: u64 = 3_600_000;
        const YEAR: u64 = 31_536_000;
        let (workers, steering, flow) = (&self.workers, &self.steering, &self.flow);
        let failover = &self.failover;
        let times = [
            ("workers.start_ms", workers.start_ms, 1, HOUR_MS),
            (
                "workers.restart_pause_max_ms",
                workers.restart_pause_max_ms,
                0,
                HOUR_MS,
            ),
            ("workers.hang_ms", workers.hang_ms, 20, HOUR_MS),
            ("steering.stale_ms", steering.stale_ms, 20, HOUR_MS),
            (
                "workers.hang_max_ms",
                workers.hang_max_ms,
                steering.stale_ms,
                HOUR_MS,
            ),
            ("steering.recover_ms", steering.recover_ms, 0, HOUR_MS),
            (
                "steering.fragment_seconds",
                steering.fragment_seconds,
                1,
                YEAR,
            ),
            (
                "steering.placement_idle_seconds",
                steering.placement_idle_seconds,
                1,
                2 * YEAR,
            ),
            ("scaling.drain_seconds", self.scaling.drain_seconds, 0, YEAR),
            (
                "failover.suspect_seconds",
                failover.suspect_seconds,
                1,
                YEAR,
            ),
            (
                "failover.quarantine_seconds",
                failover.quarantine_seconds,
                1,
                YEAR,
            ),
            ("conviction.seconds", self.conviction.seconds, 1, YEAR),
            ("flow.emergency_seconds", flow.emergency_seconds, 1, YEAR),
            ("flow.tcp_new_seconds", flow.tcp_new_seconds, 1, YEAR),
            (
                "flow.tcp_established_seconds",
                flow.tcp_established_seconds,
                1,
                YEAR,
            ),
            ("flow.tcp_closed_seconds", flow.tcp_closed_seconds, 1, YEAR),
            ("flow.new_seconds", flow.new_seconds, 1, YEAR),
            (
                "flow.established_seconds",
                flow.established_seconds,
                1,
                YEAR,
            ),
            ("overload.latency_ms", self.overload.latency_ms, 20, HOUR_MS),
            (
                "overload.recover_ms",
                self.overload.recover_ms,
                100,
                HOUR_MS,
            ),
            (
                "overload.queue_percent",
                self.overload.queue_percent.into(),
                1,
                100,
            ),
            (
                "overload.recover_percent",
                self.overload.recover_percent.into(),
                1,
                99,
            ),
            ("log.stats_seconds", self.log.stats_seconds, 0, YEAR),
        ];
        for (key, value, least, most) in times {
            if !(least..=most).contains(&value) {
                return invalid(key, format!("{least} to {most}, not {value}"));
            }
        }
        self.check_placement_idle()?;
        if let Err(message) = self.engine.validate() {
            return invalid("engine", message);
        }
        // The kernel doubles what it is asked for, in an int.
        const BUFFER_MAX: usize = 1 << 30;
        for (key, value) in [
            ("queue.receive_buffer", self.queue.receive_buffer),
            ("log.buffer", self.log.buffer),
        ] {
            if !(65_536..BUFFER_MAX).contains(&value) {
                let message = format!("65536 to {}, not {value}", BUFFER_MAX - 1);
                return invalid(key, message);
            }
        }
        if self.workers.backup_cpu < -1 {
            return invalid(
                "workers.backup_cpu",
                format!("a CPU, or -1 for any, not {}", self.workers.backup_cpu),
            );
        }
        let directories = [
            ("steering.pin_directory", &self.steering.pin_directory),
            ("rules.data_directory", &self.rules.data_directory),
            ("log.directory", &self.log.directory),
            ("control.directory", &self.control.directory),
        ];
        for (key, directory) in directories {
            if directory.as_os_str().is_empty() {
                return invalid(key, "must name a directory".into());
            }
        }
        let limits = [
            ("steering.max_placed", self.steering.max_placed),
            ("steering.max_convicted", self.steering.max_convicted),
            ("steering.max_fragments", self.steering.max_fragments),
        ];
        for (key, entries) in limits {
            if !(1..=1 << 24).contains(&entries) {
                return invalid(key, format!("1 to {}, not {entries}", 1 << 24));
            }
        }
        if !(64..=1 << 17).contains(&failover.packet_limit_bytes) {
            return invalid(
                "failover.packet_limit_bytes",
                format!("64 to {}, not {}", 1 << 17, failover.packet_limit_bytes),
            );
        }
        if !(1..=65_536).contains(&failover.packet_files) {
            return invalid(
                "failover.packet_files",
                format!("1 to 65536, not {}", failover.packet_files),
            );
        }
        if self.flow.max == 0 {
            return invalid("flow.max", "must be at least 1".into());
        }
        for &cause in Cause::ALL {
            let policy = self.exceptions.of(cause);
            if let Some(Err(message)) = policy.map(|policy| policy.check(cause)) {
                return invalid(cause.key(), message);
            }
        }
        Ok(())
    }

    /// A placement that ends before its flow would send the rest of it to another worker.
    fn check_placement_idle(&self) -> Result<(), ConfigError> {
        let longest = self.flow_limits().timeouts.longest().as_secs();
        let idle = self.steering.placement_idle_seconds;
        // What is refreshed late may be that much older than the flow.
        let sure = idle - hint_slack(idle);
        if sure > longest {
            return Ok(());
        }
        Err(ConfigError::Invalid {
            key: "steering.placement_idle_seconds",
            message: format!(
                "at least {} (the longest flow timeout is {longest}, and placements are refreshed \
                 with a delay), not {idle}",
                (longest + 1) * 16 / 15 + 1
            ),
        })
    }
}
