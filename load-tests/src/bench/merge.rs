//! Changes of single fields of a scenario: `producers.rate=500`.
//! Invariant: a change says one value; what does not fit the scenario is refused when the scenario is read.

use toml::{Table, Value};

/// Sets `FIELD.FIELD=VALUE`. A value that is no TOML is a text.
///
/// # Errors
/// There is no `=`, or a field on the way is no table.
pub fn merge(table: &mut Table, change: &str) -> Result<(), String> {
    let (path, value) = change.split_once('=').ok_or_else(|| format!("{change}: must be FIELD.FIELD=VALUE"))?;
    let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut one| one.remove("value"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let mut names: Vec<&str> = path.trim().split('.').collect();
    let last = names.pop().filter(|name| !name.is_empty()).ok_or_else(|| format!("{change}: names no field"))?;
    let mut at = table;
    for name in names {
        let next = at.entry(name).or_insert_with(|| Value::Table(Table::new()));
        at = next.as_table_mut().ok_or_else(|| format!("{change}: {name} is no table"))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_sets_one_field_and_leaves_the_others() {
        let mut table: Table = "[producers]\ncount = 3\nrate = 1\n".parse().expect("TOML");
        for change in ["producers.rate=saturated", "records.size={min=100,max=200}", "seed=9"] {
            merge(&mut table, change).expect("a change");
        }
        assert_eq!(table["producers"]["count"].as_integer(), Some(3));
        assert_eq!(table["producers"]["rate"].as_str(), Some("saturated"));
        assert_eq!(table["records"]["size"]["max"].as_integer(), Some(200));
        assert_eq!(table["seed"].as_integer(), Some(9));
    }

    #[test]
    fn what_names_no_field_is_refused() {
        let mut table: Table = "seed = 1\n".parse().expect("TOML");
        for change in ["seed", "=5", "seed.more=5"] {
            assert!(merge(&mut table, change).is_err(), "{change}");
        }
    }
}
