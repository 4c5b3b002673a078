//! What holds for any text that is given as a file, good or bad. Tests and fuzzing hold the loader to it.

use super::problem::Problem;
use super::{diff, load_text};
use tabane_api::Registry;

/// Reads `text` as a file called `t.yaml`, and holds the loader to its promises; its problems, or its warnings.
///
/// Every problem and every warning stands at a place of the text and says something; a text that is accepted
/// differs in nothing from itself. Errors: it was refused.
pub fn text(text: &str, registry: &Registry) -> Result<Vec<Problem>, Vec<Problem>> {
    let again = || load_text("t.yaml", text, registry, &|_| None);
    match again() {
        Ok(loaded) => {
            placed(text, &loaded.warnings);
            let same =
                again().unwrap_or_else(|_| panic!("accepted once, and refused the second time"));
            assert!(diff(&loaded.plan, &same.plan).is_empty());
            assert_eq!(loaded.plan.hash, same.plan.hash);
            Ok(loaded.warnings)
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            placed(text, &problems);
            Err(problems)
        }
    }
}

/// Each stands at a line there is, at a column of it or just behind its end, and has words.
fn placed(text: &str, problems: &[Problem]) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // A lone carriage return ends a line of YAML too.
    let normal = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<usize> = normal
        .split('\n')
        .map(|line| line.chars().count())
        .collect();
    for problem in problems {
        assert_eq!(problem.file, "t.yaml", "{problem}");
        let line = lines.get((problem.line as usize).wrapping_sub(1));
        let length = line.unwrap_or_else(|| panic!("of {} lines: {problem}", lines.len()));
        assert!(
            (1..=length + 1).contains(&(problem.column as usize)),
            "its line is {length} long: {problem}"
        );
        assert!(!problem.what.is_empty(), "{problem}");
        assert!(!problem.to_string().contains('\n'), "{problem}");
    }
}
