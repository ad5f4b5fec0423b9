//! `binnacle test promql FILE…`: the last line is `N passed, M failed`.

use anyhow::{Result, bail};

use super::print;
use crate::cli::{TestArgs, TestWhat};

pub(crate) fn run(a: &TestArgs) -> Result<()> {
    let TestWhat::Promql { files } = &a.what;
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        let report =
            promql::promqltest::run_file(file).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
        for f in &report.failures {
            print(&format!("{}: {f}", file.display()))?;
        }
        passed += report.passed;
        failed += report.failed;
    }
    print(&format!("{passed} passed, {failed} failed"))?;
    if failed > 0 {
        bail!("{failed} evaluations failed");
    }
    Ok(())
}
