//! Refusals of the API: a status code, and a stable reason that has a section in docs/errors.md.

use std::path::Path;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Checks that a call was refused with `reason`, in every detail that clients rely on.
///
/// # Panics
/// If it was not.
pub fn check<T: std::fmt::Debug>(case: &str, answer: Result<T, Status>, reason: &str) {
    let status = answer.map(|answer| panic!("{case}: was not refused but answered {answer:?}")).unwrap_or_else(|status| status);
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{case}: no ErrorInfo in {status:?}"));
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "flotilla"), "{case}: {status:?}");
    check_documented(case, reason, status.code());
    assert!(!status.message().is_empty(), "{case}: no message");
}

/// The reason that a status names; empty if it names none.
#[must_use]
pub fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// Checks that docs/errors.md has a section for `reason`, and that it names `code`.
///
/// # Panics
/// If it has none.
pub fn check_documented(case: &str, reason: &str, code: Code) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md");
    let docs = std::fs::read_to_string(&path).unwrap();
    let heading = format!("## {reason} ({})", name(code));
    assert!(docs.lines().any(|line| line == heading), "{case}: docs/errors.md has no section {heading:?}");
}

/// `InvalidArgument` is `INVALID_ARGUMENT` in the documentation of gRPC.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
