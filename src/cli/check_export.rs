//! `check-export`: sends one marked span, metric and log record, and tells what each hop said up to the vendors.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::model::telemetry::Signal;
use crate::model::trace::TraceId;
use crate::redact::Redactor;
use crate::telemetry::export_check::ExportCheck;
use crate::telemetry::receipts::acceptance::{Counts, VendorVerdict, Verdict};
use crate::telemetry::resource::Resource;

/// Checks the export that this configuration describes; success when every hop that could be asked has accepted.
///
/// # Errors
/// Only when an output cannot be written.
pub(super) fn run(
    config: &Config,
    patience: Duration,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitCode> {
    let redactor = Arc::new(Redactor::new(config.secrets.expose().iter().map(String::as_str)));
    let identity = Resource::new(&config.service, &config.environment).cleaned(&redactor);
    let mark = TraceId(fastrand::u128(1..).to_be_bytes());
    let check = ExportCheck::new(&config.telemetry, &identity, redactor, mark);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report { out, all_is_well: true };
    runtime.block_on(report.check(&check, patience))?;
    if report.all_is_well {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(err, "the export is not whole: see above")?;
    Ok(ExitCode::FAILURE)
}

struct Report<'o> {
    out: &'o mut dyn Write,
    all_is_well: bool,
}

impl Report<'_> {
    async fn check(&mut self, check: &ExportCheck, patience: Duration) -> io::Result<()> {
        writeln!(self.out, "sending a span, a metric and a log record of trace {}", check.mark())?;
        let before = check.counts().await;
        let mut sent = Vec::new();
        for signal in Signal::OTLP {
            let said = match check.send(signal).await {
                Ok(Some(verdict)) => self.told(&verdict),
                Ok(None) => "off: telemetry.<signal>.enabled".replace("<signal>", signal.label()),
                Err(error) => self.failed(&error.to_string()),
            };
            let endpoint = check.endpoint(signal).unwrap_or_else(|| "nowhere".to_owned());
            if said == ACCEPTED {
                sent.push(signal);
            }
            writeln!(self.out, "  {:<8} to {endpoint}: {said}", signal.label())?;
        }
        match before {
            None => writeln!(
                self.out,
                "vendors: not asked, as telemetry.receipts.url is not set (the collector's own metrics, http://HOST:8888/metrics)"
            ),
            Some(Err(reason)) => {
                let said = self.failed(reason.as_str());
                writeln!(self.out, "vendors: {said}")
            }
            Some(Ok(before)) => self.vendors(check, &before, &sent, patience).await,
        }
    }

    async fn vendors(
        &mut self,
        check: &ExportCheck,
        before: &Counts,
        sent: &[Signal],
        patience: Duration,
    ) -> io::Result<()> {
        if sent.is_empty() {
            return writeln!(self.out, "vendors: not waited for, as nothing was accepted on the way to them");
        }
        writeln!(self.out, "vendors, as the collector counts what they accept (of everybody's telemetry):")?;
        self.out.flush()?;
        match check.vendors(before, sent, patience).await {
            Err(reason) => {
                let said = self.failed(reason.as_str());
                writeln!(self.out, "  {said}")
            }
            Ok(vendors) if vendors.is_empty() => {
                let said = self.failed("the collector names no exporter, expected one for each vendor");
                writeln!(self.out, "  {said}")
            }
            Ok(vendors) => vendors.iter().try_for_each(|vendor| self.vendor(vendor)),
        }
    }

    fn vendor(&mut self, vendor: &VendorVerdict) -> io::Result<()> {
        for (signal, verdict) in &vendor.signals {
            let said = self.told(verdict);
            writeln!(
                self.out,
                "  {:<8} at {} ({}): {said}",
                signal.label(),
                vendor.vendor.as_str(),
                vendor.exporter.as_str()
            )?;
        }
        Ok(())
    }

    fn told(&mut self, verdict: &Verdict) -> String {
        match verdict {
            Verdict::Accepted => ACCEPTED.to_owned(),
            Verdict::Refused(reason) => self.failed(&format!("refused: {reason}")),
            Verdict::Silent(reason) => self.failed(&format!("no answer: {reason}")),
        }
    }

    fn failed(&mut self, reason: &str) -> String {
        self.all_is_well = false;
        reason.to_owned()
    }
}

const ACCEPTED: &str = "accepted";
