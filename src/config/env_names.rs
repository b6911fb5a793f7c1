//! Names in the environment, and nowhere else.

/// Begins the name of every setting: `MEHL_SOUP__REDIS__URL` is `redis.url`.
pub const PREFIX: &str = "MEHL_SOUP__";
/// Names the configuration file, where `--config` does not.
pub const FILE: &str = "MEHL_SOUP_CONFIG";
/// Older, shorter name of `client.server`; the longer one wins.
pub const SERVER: &str = "MEHL_SOUP_SERVER";

/// The variable of a key.
pub fn of_key(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// The key that a variable stands for, known or not; `None` for a variable that is none of ours.
pub fn key_of(name: &str) -> Option<String> {
    Some(name.strip_prefix(PREFIX)?.replace("__", ".").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_variables_name_each_other() {
        for setting in crate::config::SETTINGS {
            assert_eq!(key_of(&of_key(setting.key)).as_deref(), Some(setting.key));
        }
        assert_eq!(of_key("redis.url_file"), "MEHL_SOUP__REDIS__URL_FILE");
        // Kubernetes makes such names from a service's.
        assert_eq!(key_of("MEHL_SOUP_SERVICE_PORT"), None);
        assert_eq!(key_of("MEHL_SOUP_WORKER"), None);
    }
}
