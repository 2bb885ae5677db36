//! Whether what a person named exists: a deployment, a group of it, a copy of that.

use std::collections::BTreeMap;

use hvm_types::{DeploymentStatus, GroupName};

use crate::client::Control;
use crate::failure::Failure;

/// Names that are listed in an error.
const LISTED: usize = 5;

/// Fails where `of` (`deployment`, `deployment/group` or `deployment/group/number`) names nothing that is declared, and
/// says what there is instead.
pub(crate) async fn check(control: &mut Control, of: &str) -> Result<(), Failure> {
    let wire = control.status("").await?.deployments;
    let all: Vec<DeploymentStatus> = wire.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    let groups = |status: &DeploymentStatus| {
        let groups = status.groups.iter();
        groups.map(|group| (group.group.clone(), group.replicas.len())).collect()
    };
    let known: BTreeMap<String, Groups> =
        all.iter().map(|status| (status.deployment.to_string(), groups(status))).collect();
    find(&known, of)
}

/// Groups, and how many copies each has.
type Groups = BTreeMap<GroupName, usize>;

fn find(known: &BTreeMap<String, Groups>, of: &str) -> Result<(), Failure> {
    let mut parts = of.split('/');
    let deployment = parts.next().unwrap_or_default();
    let Some(groups) = known.get(deployment) else {
        let there = match known.is_empty() {
            true => "nothing is declared: `hvm deploy FILE` declares a deployment".to_owned(),
            false => format!("there is {}", list(known.keys())),
        };
        return Err(Failure::new(format!("there is no deployment `{deployment}`")).hint(there));
    };
    let Some(group) = parts.next() else { return Ok(()) };
    let Some((_, copies)) = groups.iter().find(|(name, _)| name.as_str() == group) else {
        return Err(Failure::new(format!("deployment `{deployment}` has no group `{group}`"))
            .hint(format!("it has {}", list(groups.keys()))));
    };
    match parts.next() {
        Some(number) if !number.parse().is_ok_and(|number: usize| number < *copies) => {
            let has = match copies {
                0 => "it has none".to_owned(),
                copies => format!("they are numbered from 0 to {}", copies - 1),
            };
            Err(Failure::new(format!("`{deployment}/{group}` has no copy `{number}`")).hint(has))
        }
        _ => Ok(()),
    }
}

fn list(names: impl ExactSizeIterator<Item: std::fmt::Display>) -> String {
    let more = names.len().saturating_sub(LISTED);
    let names: Vec<String> = names.take(LISTED).map(|name| name.to_string()).collect();
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more; `hvm status` shows all") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(deployments: &[&str]) -> BTreeMap<String, Groups> {
        let group = || "web".parse().expect("a valid name");
        deployments.iter().map(|name| ((*name).to_owned(), [(group(), 3)].into())).collect()
    }

    fn said(known: &BTreeMap<String, Groups>, of: &str) -> String {
        let failure = find(known, of).expect_err("it does not exist");
        format!("{failure:?}")
    }

    #[test]
    fn what_exists_is_found_and_what_does_not_is_answered_with_what_does() {
        let shops = known(&["inn", "shop"]);
        for of in ["shop", "shop/web", "shop/web/2", "inn"] {
            assert!(find(&shops, of).is_ok(), "{of}");
        }
        assert!(said(&shops, "shopp").contains("there is inn, shop"), "{}", said(&shops, "shopp"));
        assert!(said(&shops, "sho").contains("no deployment `sho`"), "half a name is none");
        assert!(said(&shops, "shop/api").contains("it has web"), "{}", said(&shops, "shop/api"));
        assert!(said(&shops, "shop/web/3").contains("from 0 to 2"), "{}", said(&shops, "shop/web/3"));
        assert!(said(&known(&[]), "shop").contains("hvm deploy"));
        let many = known(&["a", "b", "c", "d", "e", "f", "g"]);
        assert!(said(&many, "shop").contains("a, b, c, d, e and 2 more"), "{}", said(&many, "shop"));
    }
}
