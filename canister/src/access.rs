//! Who may do what: the settings and the roles that follow from them, as plain values.

use candid::Principal;
use model_core::chat::ChatTemplate;

use crate::api::{ActivationBits, Config, ConfigUpdate, Error, GenerateAccess, KvCacheBits, Residency, Role};

/// Ceiling that no setting may pass: the platform's 40e9 less what saving and replying can cost.
const MAX_INSTRUCTIONS: u64 = 38_000_000_000;
const MAX_LIST: usize = 1_000;
/// Method that the canister calls itself; not part of the interface.
pub const CHAT_STEP: &str = "chat_step";
const MAX_TEMPLATE_BYTES: usize = 64 << 10;

impl Default for Config {
    fn default() -> Self {
        Self {
            generate_access: GenerateAccess::Controllers,
            operators: Vec::new(),
            users: Vec::new(),
            max_instructions: 36_000_000_000,
            cache_heap_bytes: 1 << 30,
            kv_cache_bits: KvCacheBits::Auto,
            max_heap_bytes: 3 << 30,
            residency: Residency::Auto,
            activation_bits: ActivationBits::Bits16,
            max_sessions: 1_000,
            max_sessions_per_principal: 100,
            max_tokens_per_day: 100_000,
            max_runs_per_principal: 10,
            session_ttl_seconds: 7 * 86_400,
            cycles_floor: 500_000_000_000,
            max_input_bytes: 256 << 10,
            max_session_tokens: 32 << 10,
            chat_template: None,
        }
    }
}

impl Config {
    /// These settings with the changes of `update`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the first field that is out of range.
    pub fn updated(&self, update: &ConfigUpdate) -> Result<Self, Error> {
        let old = self.clone();
        let new = Self {
            generate_access: update.generate_access.unwrap_or(old.generate_access),
            operators: update.operators.clone().unwrap_or(old.operators),
            users: update.users.clone().unwrap_or(old.users),
            max_instructions: update.max_instructions.unwrap_or(old.max_instructions),
            cache_heap_bytes: update.cache_heap_bytes.unwrap_or(old.cache_heap_bytes),
            kv_cache_bits: update.kv_cache_bits.unwrap_or(old.kv_cache_bits),
            max_heap_bytes: update.max_heap_bytes.unwrap_or(old.max_heap_bytes),
            residency: update.residency.unwrap_or(old.residency),
            activation_bits: update.activation_bits.unwrap_or(old.activation_bits),
            max_sessions: update.max_sessions.unwrap_or(old.max_sessions),
            max_sessions_per_principal: update.max_sessions_per_principal.unwrap_or(old.max_sessions_per_principal),
            max_tokens_per_day: update.max_tokens_per_day.unwrap_or(old.max_tokens_per_day),
            max_runs_per_principal: update.max_runs_per_principal.unwrap_or(old.max_runs_per_principal),
            session_ttl_seconds: update.session_ttl_seconds.unwrap_or(old.session_ttl_seconds),
            cycles_floor: update.cycles_floor.unwrap_or(old.cycles_floor),
            max_input_bytes: update.max_input_bytes.unwrap_or(old.max_input_bytes),
            max_session_tokens: update.max_session_tokens.unwrap_or(old.max_session_tokens),
            chat_template: match &update.chat_template {
                Some(template) => Some(template.clone()).filter(|template| !template.is_empty()),
                None => old.chat_template,
            },
        };
        new.check()?;
        Ok(new)
    }

    fn check(&self) -> Result<(), Error> {
        check_range("max_instructions", self.max_instructions, 1, MAX_INSTRUCTIONS)?;
        check_range("cache_heap_bytes", self.cache_heap_bytes, 1 << 20, 3 << 30)?;
        check_range("max_heap_bytes", self.max_heap_bytes, 64 << 20, 4 << 30)?;
        check_range("max_sessions", self.max_sessions.into(), 1, 100_000)?;
        check_range("max_sessions_per_principal", self.max_sessions_per_principal.into(), 1, 100_000)?;
        check_range("max_tokens_per_day", self.max_tokens_per_day, 1, u64::MAX)?;
        check_range("max_runs_per_principal", self.max_runs_per_principal.into(), 1, 100_000)?;
        if self.session_ttl_seconds != 0 {
            check_range("session_ttl_seconds", self.session_ttl_seconds, 60, 3_000_000_000)?;
        }
        check_range("max_input_bytes", self.max_input_bytes.into(), 1, 2 << 20)?;
        check_range("max_session_tokens", self.max_session_tokens.into(), 1, 1 << 20)?;
        check_principals("operators", &self.operators)?;
        check_principals("users", &self.users)?;
        check_template(self.chat_template.as_deref())
    }

    /// The same settings as an update, which is how they are stored: a setting that a later version
    /// adds is then absent and has its default.
    pub fn to_update(&self) -> ConfigUpdate {
        ConfigUpdate {
            generate_access: Some(self.generate_access),
            operators: Some(self.operators.clone()),
            users: Some(self.users.clone()),
            max_instructions: Some(self.max_instructions),
            cache_heap_bytes: Some(self.cache_heap_bytes),
            kv_cache_bits: Some(self.kv_cache_bits),
            max_heap_bytes: Some(self.max_heap_bytes),
            residency: Some(self.residency),
            activation_bits: Some(self.activation_bits),
            max_sessions: Some(self.max_sessions),
            max_sessions_per_principal: Some(self.max_sessions_per_principal),
            max_tokens_per_day: Some(self.max_tokens_per_day),
            max_runs_per_principal: Some(self.max_runs_per_principal),
            session_ttl_seconds: Some(self.session_ttl_seconds),
            cycles_floor: Some(self.cycles_floor),
            max_input_bytes: Some(self.max_input_bytes),
            max_session_tokens: Some(self.max_session_tokens),
            chat_template: self.chat_template.clone(),
        }
    }

    /// Whether `caller` has `role`.
    pub fn admits(&self, role: Role, caller: &Principal, is_controller: bool) -> bool {
        let operator = is_controller || self.operators.contains(caller);
        match role {
            Role::Controller => is_controller,
            Role::Operator => operator,
            Role::User => operator || self.admits_user(caller),
        }
    }

    fn admits_user(&self, caller: &Principal) -> bool {
        match self.generate_access {
            GenerateAccess::Controllers => false,
            GenerateAccess::AllowList => self.users.contains(caller),
            GenerateAccess::Authenticated => *caller != Principal::anonymous(),
            GenerateAccess::Anyone => true,
        }
    }
}

/// The role that an update method asks for before anything else. The others know only sessions of the caller.
pub fn role_needed(method: &str) -> Option<Role> {
    match method {
        "upload_begin" | "upload_chunk" | "upload_commit" | "upload_abort" | "model_load_step" | "config_set" => {
            Some(Role::Operator)
        }
        "session_create" | "session_advance" | "session_run" | "session_append" | "session_restart" | "v0_chat"
        | "v1_chat" => Some(Role::User),
        _ => None,
    }
}

fn check_range(field: &str, value: u64, min: u64, max: u64) -> Result<(), Error> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::InvalidArgument { field: field.into(), reason: format!("{value} is not between {min} and {max}") })
}

fn check_template(template: Option<&str>) -> Result<(), Error> {
    let invalid = |reason| Error::InvalidArgument { field: "chat_template".into(), reason };
    match template {
        Some(template) if template.len() > MAX_TEMPLATE_BYTES => {
            Err(invalid(format!("it has {} bytes; at most {MAX_TEMPLATE_BYTES} are accepted", template.len())))
        }
        Some(template) => ChatTemplate::check(template).map_err(|error| invalid(error.to_string())),
        None => Ok(()),
    }
}

fn check_principals(field: &str, list: &[Principal]) -> Result<(), Error> {
    let refuse = |reason: String| Err(Error::InvalidArgument { field: field.into(), reason });
    if list.len() > MAX_LIST {
        return refuse(format!("{} principals are listed, at most {MAX_LIST} may be", list.len()));
    }
    if list.contains(&Principal::anonymous()) {
        return refuse("the anonymous principal cannot be listed; use generate_access Anyone".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_being_stored_as_an_update() {
        let update = ConfigUpdate {
            generate_access: Some(GenerateAccess::AllowList),
            users: Some(vec![Principal::from_slice(&[1])]),
            max_sessions: Some(7),
            max_tokens_per_day: Some(u64::MAX),
            session_ttl_seconds: Some(0),
            kv_cache_bits: Some(KvCacheBits::Bits8),
            ..ConfigUpdate::default()
        };
        let config = Config::default().updated(&update).unwrap();
        assert_eq!((config.max_sessions, config.kv_cache_bits), (7, KvCacheBits::Bits8));
        assert_eq!(Config::default().updated(&config.to_update()), Ok(config));
    }

    #[test]
    fn refuses_settings_out_of_range_by_name() {
        let refused = |update: ConfigUpdate, name: &str| {
            let result = Config::default().updated(&update);
            assert!(matches!(&result, Err(Error::InvalidArgument { field, .. }) if field == name), "{result:?}");
        };
        let default = ConfigUpdate::default;
        refused(ConfigUpdate { max_instructions: Some(39_000_000_000), ..default() }, "max_instructions");
        refused(ConfigUpdate { max_instructions: Some(0), ..default() }, "max_instructions");
        refused(ConfigUpdate { cache_heap_bytes: Some(1), ..default() }, "cache_heap_bytes");
        refused(ConfigUpdate { max_heap_bytes: Some(5 << 30), ..default() }, "max_heap_bytes");
        refused(ConfigUpdate { max_sessions: Some(0), ..default() }, "max_sessions");
        refused(ConfigUpdate { max_sessions_per_principal: Some(0), ..default() }, "max_sessions_per_principal");
        refused(ConfigUpdate { max_tokens_per_day: Some(0), ..default() }, "max_tokens_per_day");
        refused(ConfigUpdate { session_ttl_seconds: Some(59), ..default() }, "session_ttl_seconds");
        refused(ConfigUpdate { max_runs_per_principal: Some(100_001), ..default() }, "max_runs_per_principal");
        refused(ConfigUpdate { max_input_bytes: Some(u32::MAX), ..default() }, "max_input_bytes");
        refused(ConfigUpdate { max_session_tokens: Some(0), ..default() }, "max_session_tokens");
        refused(ConfigUpdate { operators: Some(vec![Principal::anonymous()]), ..default() }, "operators");
        refused(ConfigUpdate { users: Some(vec![Principal::from_slice(&[1]); 1001]), ..default() }, "users");
    }

    #[test]
    fn roles_follow_from_the_settings() {
        let [operator, user, other] = [1, 2, 3].map(|byte| Principal::from_slice(&[byte]));
        let anonymous = Principal::anonymous();
        let config = |generate_access| Config {
            generate_access,
            operators: vec![operator],
            users: vec![user],
            ..Config::default()
        };
        let callers = [(operator, false), (user, false), (other, false), (anonymous, false), (other, true)];
        let admitted = |access, role| callers.map(|(who, controls)| config(access).admits(role, &who, controls));
        use GenerateAccess::*;
        assert_eq!(admitted(Anyone, Role::Controller), [false, false, false, false, true]);
        assert_eq!(admitted(Anyone, Role::Operator), [true, false, false, false, true]);
        assert_eq!(admitted(Controllers, Role::User), [true, false, false, false, true]);
        assert_eq!(admitted(AllowList, Role::User), [true, true, false, false, true]);
        assert_eq!(admitted(Authenticated, Role::User), [true, true, true, false, true]);
        assert_eq!(admitted(Anyone, Role::User), [true; 5]);
    }
}
