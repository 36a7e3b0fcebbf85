//! The files the engine writes for a container: /etc/hosts, /etc/hostname, /etc/resolv.conf.

use std::fs;
use std::io;
use std::path::Path;

use crate::container::Container;
use crate::error::{Error, Result};
use crate::files;
use crate::layout::ContainerPaths;

/// Names of the files, in the container's run-time directory and in /etc.
pub(crate) const FILES: [&str; 3] = ["resolv.conf", "hostname", "hosts"];

/// Everybody inside may read them.
const MODE: u32 = 0o644;
/// A host's file larger than this is not a hosts file.
const LIMIT_BYTES: u64 = 1 << 20;

/// What every container's /etc/hosts begins with, when the network is not the host's.
const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                           ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Writes the three files into the container's run-time directory.
pub(crate) fn write(paths: &ContainerPaths, container: &Container) -> Result<()> {
    let host_network = container.uses_host_network();
    let resolv = resolv_conf(&read_host("/etc/resolv.conf")?, container);
    let hosts = if host_network {
        read_host("/etc/hosts")?
    } else {
        LOCAL_HOSTS.to_owned()
    };
    let hosts = with_extra_hosts(hosts, container);
    let hostname = format!("{}\n", container.config.hostname);
    for (name, content) in [
        ("resolv.conf", resolv),
        ("hosts", hosts),
        ("hostname", hostname),
    ] {
        files::write(&paths.etc(name), content.as_bytes(), MODE)?;
    }
    Ok(())
}

/// Reads a file of the host's; a missing one is empty.
fn read_host(path: &str) -> Result<String> {
    let path = Path::new(path);
    let read = || -> io::Result<Vec<u8>> {
        if fs::metadata(path)?.len() > LIMIT_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        fs::read(path)
    };
    match read() {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn with_extra_hosts(mut hosts: String, container: &Container) -> String {
    for entry in container.host_config.extra_hosts.iter().flatten() {
        if let Some((name, address)) = entry.split_once(':') {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
    }
    hosts
}

/// The host's resolver configuration with what the user said in place of the host's lines of that kind.
fn resolv_conf(host: &str, container: &Container) -> String {
    let config = &container.host_config;
    if config.dns.is_empty() && config.dns_search.is_empty() && config.dns_options.is_empty() {
        return host.to_owned();
    }
    let of_host = |keyword: &str| -> Vec<String> {
        let lines = host
            .lines()
            .filter_map(|line| line.trim().strip_prefix(keyword));
        lines
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect()
    };
    let chosen = |ours: &[String], keyword: &str| {
        if ours.is_empty() {
            of_host(keyword)
        } else {
            ours.to_vec()
        }
    };
    let mut text = String::new();
    let search = chosen(&config.dns_search, "search ");
    // "." is how docker says: no search at all.
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in chosen(&config.dns, "nameserver ") {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let options = chosen(&config.dns_options, "options ");
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::sample;

    #[test]
    fn resolver_lines_are_replaced_by_kind() {
        let host = "# made by hand\nnameserver 10.0.0.1\nsearch lan\noptions edns0\n";
        let mut container = sample();
        assert_eq!(resolv_conf(host, &container), host);
        container.host_config.dns = vec!["9.9.9.9".into()];
        container.host_config.dns_options = vec!["ndots:2".into()];
        assert_eq!(
            resolv_conf(host, &container),
            "search lan\nnameserver 9.9.9.9\noptions ndots:2\n"
        );
        container.host_config.dns_search = vec![".".into()];
        assert_eq!(
            resolv_conf(host, &container),
            "nameserver 9.9.9.9\noptions ndots:2\n"
        );
    }

    #[test]
    fn extra_hosts_are_added() {
        let mut container = sample();
        container.host_config.extra_hosts = Some(vec!["foo:1.2.3.4".into(), "bar:::1".into()]);
        assert_eq!(
            with_extra_hosts(String::new(), &container),
            "1.2.3.4\tfoo\n::1\tbar\n"
        );
    }
}
