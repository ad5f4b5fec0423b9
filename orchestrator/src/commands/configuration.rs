//! `config print-defaults` and `config check`.

use anyhow::Result;

use super::print;
use crate::cli::{ConfigCommand, ConfigWhat};
use crate::config::{Config, ConfigArgs, defaults};

pub(crate) fn run(c: ConfigCommand) -> Result<()> {
    match c.what {
        ConfigWhat::PrintDefaults => {
            let value = serde_json::to_value(defaults())?;
            for (key, value) in value.as_object().into_iter().flatten() {
                match value.as_str() {
                    Some(v) => print(&format!("{key}: {v}"))?,
                    // The default is found out at the start: the host's name, its address.
                    None => print(&format!("# {key}:"))?,
                }
            }
            Ok(())
        }
        ConfigWhat::Check { file } => {
            Config::load(ConfigArgs { config: Some(file.clone()), ..ConfigArgs::default() })?;
            print(&format!("{} is good", file.display()))
        }
    }
}
