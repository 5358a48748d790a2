//! IP addresses, networks and ranges of addresses as people write them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

/// The networks that a rule covers: an address, CIDR, `a.b.c.d-N` (the last
/// byte runs to N), or `address-address`. `None` when it is none of these.
pub(in crate::config) fn networks(rule: &str) -> Option<Vec<IpNet>> {
    let rule = rule.trim();
    if let Ok(address) = rule.parse::<IpAddr>() {
        return Some(vec![address.into()]);
    }
    if let Ok(network) = rule.parse::<IpNet>() {
        return Some(vec![network.trunc()]);
    }
    let (first, last) = rule.split_once('-')?;
    let first: IpAddr = first.trim().parse().ok()?;
    let last = last.trim();
    match (first, last.parse::<IpAddr>().ok()) {
        (IpAddr::V4(first), Some(IpAddr::V4(last))) => between(first, last),
        (IpAddr::V6(first), Some(IpAddr::V6(last))) => {
            let all = (first <= last).then(|| Ipv6Subnets::new(first, last, 0));
            all.map(|all| all.map(IpNet::V6).collect())
        }
        (IpAddr::V4(first), None) => {
            let [a, b, c, _] = first.octets();
            between(first, Ipv4Addr::new(a, b, c, last.parse().ok()?))
        }
        _ => None,
    }
}

fn between(first: Ipv4Addr, last: Ipv4Addr) -> Option<Vec<IpNet>> {
    let all = (first <= last).then(|| Ipv4Subnets::new(first, last, 0))?;
    Some(all.map(IpNet::V4).collect())
}

/// An address to listen on; `localhost` and brackets are understood.
pub(in crate::config) fn listen(host: &str) -> Option<IpAddr> {
    let bare = host.trim();
    if bare.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = bare
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(bare);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(rule: &str, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        networks(rule)
            .unwrap()
            .iter()
            .any(|network| network.contains(&address))
    }

    #[test]
    fn addresses_and_networks_cover_what_they_say() {
        assert!(covers("10.0.0.1", "10.0.0.1") && !covers("10.0.0.1", "10.0.0.2"));
        assert!(covers("10.0.0.7/8", "10.255.0.1") && !covers("10.0.0.0/8", "11.0.0.1"));
        assert!(covers("2001:db8::/32", "2001:db8::5") && covers("::1", "::1"));
    }

    #[test]
    fn ranges_cover_exactly_their_members() {
        for (rule, inside, outside) in [
            ("192.168.1.10-20", "192.168.1.10", "192.168.1.9"),
            ("192.168.1.10-20", "192.168.1.20", "192.168.1.21"),
            ("10.0.0.250 - 10.0.1.5", "10.0.1.5", "10.0.1.6"),
            ("::5-::9", "::9", "::a"),
            ("0.0.0.0-255.255.255.255", "8.8.8.8", "::1"),
        ] {
            assert!(covers(rule, inside), "{rule} {inside}");
            assert!(!covers(rule, outside), "{rule} {outside}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for rule in [
            "",
            "10.0.0",
            "10.0.0.1/33",
            "10.0.0.9-3",
            "10.0.0.1-300",
            "10.0.0.1-::1",
            "::1-5",
            "example.com",
            "10.0.0.2-10.0.0.1",
            "-",
        ] {
            assert_eq!(networks(rule), None, "{rule}");
        }
    }

    #[test]
    fn listen_addresses_may_be_bracketed_or_localhost() {
        assert_eq!(listen("[::1]"), Some("::1".parse().unwrap()));
        assert_eq!(listen("LocalHost"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(listen("example.com"), None);
    }
}
