//! How rules are compiled, as the settings say.

use std::path::PathBuf;
use std::rc::Rc;

use super::engine::CompileOptions;
use super::order::{ActionKind, ActionOrder};
use super::reputation::Reputation;
use crate::config::settings::{ActionName, EngineSettings};
use crate::rules::{RuleSource, Sources, Thresholds, Unusable, Variables};

impl CompileOptions {
    /// As the settings say; `variables` may be named in the threshold file. That file and
    /// reputation files are read here, what a rule needs when that is compiled.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn configured(
        settings: &EngineSettings,
        variables: &Variables,
        sources: &Rc<Sources>,
    ) -> Result<Self, Unusable> {
        let order = settings.action_order.iter().map(|action| match action {
            ActionName::Pass => ActionKind::Pass,
            ActionName::Drop => ActionKind::Drop,
            ActionName::Reject => ActionKind::Reject,
            ActionName::Alert => ActionKind::Alert,
        });
        let named = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        let categories = named(&settings.reputation_categories_file);
        let reputation = match categories {
            None => None,
            Some(categories) => {
                let lists: Vec<_> = settings
                    .reputation_files
                    .iter()
                    .map(|file| settings.default_reputation_path.join(file))
                    .collect();
                let reputation = Reputation::load(&categories, &lists, sources)?;
                if reputation.skipped > 0 {
                    log::warn!(
                        "{} and its lists: {} lines say nothing usable, skipped",
                        categories.display(),
                        reputation.skipped
                    );
                }
                Some(reputation)
            }
        };
        let thresholds = match named(&settings.threshold_file) {
            None => Vec::new(),
            Some(path) => {
                let bytes = sources.read(&path);
                let bytes = bytes.map_err(|source| Unusable::file(&path, source))?;
                let read = Thresholds::parse(&RuleSource::new(path, bytes), variables);
                for diagnostic in &read.diagnostics {
                    log::warn!("{}", diagnostic.render());
                }
                read.entries
            }
        };
        let cached = settings.detect.sgh_mpm_caching;
        Ok(Self {
            cache: named(&settings.detect.sgh_mpm_caching_path).filter(|_| cached),
            action_order: ActionOrder::of(order),
            recursion_limit: settings.detect.inspection_recursion_limit,
            packet_alert_max: usize::from(settings.packet_alert_max),
            thresholds,
            reputation,
            geoip_database: named(&settings.geoip_database),
            sources: Rc::clone(sources),
            ..Self::default()
        })
    }
}
