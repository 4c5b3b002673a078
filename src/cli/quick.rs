use super::run;
use crate::app::{App, Source};
use clap::Args;
use std::fmt::Write;
use std::process::ExitCode;

/// A gateway from the command line alone.
#[derive(Args)]
pub(super) struct QuickArgs {
    /// A URL to forward to; give it several times
    #[arg(long, required = true, value_name = "URL")]
    to: Vec<String>,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: String,
    /// How many requests each URL works on at once
    #[arg(long, default_value_t = 1, value_name = "N")]
    slots: u32,
    /// Where the admin API listens, or `off`
    #[arg(long, default_value = "127.0.0.1:9900", value_name = "ADDRESS")]
    admin: String,
    /// The kind that knows the API behind the URLs
    #[arg(long, default_value = "http")]
    kind: String,
}

/// Prints the file to keep, and runs it.
pub(super) fn quick(app: &App, args: &QuickArgs) -> ExitCode {
    let yaml = yaml(args);
    println!(
        "# Keep this as conf/tabane.yaml and start it with `tabane run`:\n{yaml}\n# Try: curl http://{}/",
        shown(&args.listen)
    );
    run::run(app, Source::Text(yaml))
}

fn yaml(args: &QuickArgs) -> String {
    let mut yaml = format!(
        "listen: [{}]\nadmin: {}\n",
        quoted(&args.listen),
        quoted(&args.admin)
    );
    if !is_loopback(&args.listen) {
        yaml.push_str("access: {anonymous: allow}   # everybody who reaches the address; see `tenants` for keys\n");
    }
    let _ = write!(
        yaml,
        "services:\n  any:\n    kind: {}\n    pool:\n",
        quoted(&args.kind)
    );
    for url in &args.to {
        // `gpu1:8188` is what people type.
        let url = if url.contains("://") {
            url.clone()
        } else {
            format!("http://{url}")
        };
        let _ = writeln!(
            yaml,
            "      - {{url: {}, slots: {}}}",
            quoted(&url),
            args.slots
        );
    }
    yaml.push_str("    routes: [/]\n");
    yaml
}

/// A string as YAML takes it whatever it holds: JSON's form.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn shown(listen: &str) -> String {
    listen.strip_prefix(':').map_or_else(
        || listen.replace("0.0.0.0", "127.0.0.1"),
        |port| format!("127.0.0.1:{port}"),
    )
}

fn is_loopback(listen: &str) -> bool {
    listen
        .parse::<std::net::SocketAddr>()
        .is_ok_and(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_to_keep_says_what_the_command_line_said() {
        let args = QuickArgs {
            to: vec!["http://gpu1:8188".into(), "gpu2:8188".into()],
            listen: ":8080".into(),
            slots: 2,
            admin: "off".into(),
            kind: "http".into(),
        };
        let text = yaml(&args);
        assert!(
            text.contains(r#"{url: "http://gpu2:8188", slots: 2}"#),
            "{text}"
        );
        assert!(text.contains("anonymous: allow"), "{text}");
        assert!(
            serde_yaml::from_str::<serde_yaml::Value>(&text).is_ok(),
            "{text}"
        );
    }
}
