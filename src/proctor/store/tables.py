"""The tables. Constraints say what the code must never break; `migrations/` makes them so."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# The one clock of the database; the simulation puts its own function in the place of this one.
now = func.proctor_now()


def _id() -> Column[int]:
    return Column("id", BigInteger, Identity(), primary_key=True)


def _ref(name: str, target: str, *, nullable: bool = False, index: bool = False) -> Column[int]:
    return Column(name, BigInteger, ForeignKey(f"{target}.id", ondelete="CASCADE"), nullable=nullable, index=index)


def _at(name: str, *, nullable: bool = True, default: bool = False) -> Column[object]:
    default_ = text("proctor_now()") if default else None
    return Column(name, DateTime(timezone=True), nullable=nullable and not default, server_default=default_)


def _flag(name: str, *, default: bool) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=text("true" if default else "false"))


def _text(name: str, default: str | None = "") -> Column[str]:
    return Column(name, Text, nullable=default is None, server_default=default)


def _json(name: str, default: str = "{}") -> Column[object]:
    return Column(name, JSONB, nullable=False, server_default=text(f"'{default}'::jsonb"))


def _number(name: str, default: int = 0) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text(str(default)))


# --- accounts --------------------------------------------------------------------------------------------------------

companies = Table(
    "companies",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    _text("short_name"),
    Column("callback_secrets", ARRAY(Text), nullable=False, server_default="{}"),
    _at("created_at", default=True),
)

users = Table(
    "users",
    metadata,
    _id(),
    Column("username", Text, nullable=False, unique=True),
    _text("password_hash", None),
    _text("email"),
    _text("name"),
    _text("surname"),
    _flag("admin", default=False),
    _flag("enabled", default=True),
    _at("created_at", default=True),
)

memberships = Table(
    "memberships",
    metadata,
    Column("user_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("company_id", BigInteger, ForeignKey("companies.id", ondelete="CASCADE"), primary_key=True),
    Column("roles", ARRAY(Text), nullable=False, server_default="{}"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    # SHA-256 of the token: the token itself is nowhere.
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("kind", Text, CheckConstraint("kind IN ('access', 'refresh', 'personal', 'session')", name="kind")),
    _ref("user_id", "users", index=True),
    # Access and refresh tokens of one sign-in share it: a refresh token that is used twice revokes them all.
    Column("family", Text, nullable=False, index=True),
    _text("label"),
    _at("created_at", default=True),
    _at("expires_at"),
    _at("used_at"),
    _at("revoked_at"),
)

sign_in_failures = Table(
    "sign_in_failures",
    metadata,
    _id(),
    Column("username", Text, nullable=False),
    Column("address", Text, nullable=False),
    _at("failed_at", default=True),
    Index(None, "username", "address", "failed_at"),
    Index(None, "address", "failed_at"),
)

# --- hubs and environments -------------------------------------------------------------------------------------------

hubs = Table(
    "hubs",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, CheckConstraint("kind IN ('local', 'selenium', 'appium')", name="kind"), nullable=False),
    _text("url"),
    _flag("enabled", default=True),
    _number("slots"),
    # [{os, browser, version, slots}], as last offered.
    _json("offers", "[]"),
    _at("seen_at"),
)

workers = Table(
    "workers",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("queues", ARRAY(Text), nullable=False),
    Column("concurrency", Integer, nullable=False),
    _ref("hub_id", "hubs", nullable=True),
    _at("started_at", default=True),
    _at("heartbeat_at", default=True),
)

environments = Table(
    "environments",
    metadata,
    _id(),
    # Without a company: one that appeared by itself, which every company may use.
    _ref("company_id", "companies", nullable=True),
    Column("name", Text, nullable=False),
    Column("os", Text, nullable=False),
    Column("browser", Text, nullable=False),
    _text("version"),
    _text("resolution", None),
    _flag("enabled", default=True),
    UniqueConstraint("company_id", "name", postgresql_nulls_not_distinct=True),
)

# --- catalog ---------------------------------------------------------------------------------------------------------

projects = Table(
    "projects",
    metadata,
    _id(),
    _ref("company_id", "companies"),
    Column("name", Text, nullable=False),
    _text("description"),
    _flag("enabled", default=True),
    Column("repository", Text, nullable=False),
    _text("branch", "main"),
    Column("framework", Text, nullable=False),
    Column("runner", Text, nullable=False),
    _text("setup"),
    _text("command"),
    # {username, token} or {ssh_key}; never shown again.
    _json("credential"),
    _json("parameters"),
    _at("created_at", default=True),
    UniqueConstraint("company_id", "name"),
)

scenarios = Table(
    "scenarios",
    metadata,
    _id(),
    _ref("project_id", "projects"),
    Column("name", Text, nullable=False),
    _text("description"),
    _text("source"),
    _text("selector"),
    _text("command"),
    _json("parameters"),
    _flag("enabled", default=True),
    _number("position"),
    UniqueConstraint("project_id", "name"),
)

plans = Table(
    "plans",
    metadata,
    _id(),
    _ref("project_id", "projects"),
    Column("name", Text, nullable=False, index=True),
    _text("description"),
    _flag("enabled", default=True),
    _number("parallel", 1),
    _number("retries"),
    _number("timeout_seconds", 600),
    _text("screenshots", "ONLY_FAILURE"),
    _flag("video", default=False),
    _json("parameters"),
    # True: every enabled scenario of the project, also those that come later.
    _flag("all_scenarios", default=False),
    _at("created_at", default=True),
    UniqueConstraint("project_id", "name"),
)

plan_scenarios = Table(
    "plan_scenarios",
    metadata,
    Column("plan_id", BigInteger, ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True),
    Column("scenario_id", BigInteger, ForeignKey("scenarios.id", ondelete="CASCADE"), primary_key=True),
    _number("position"),
)

plan_environments = Table(
    "plan_environments",
    metadata,
    Column("plan_id", BigInteger, ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True),
    Column("environment_id", BigInteger, ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True),
    _number("position"),
)

# --- executions ------------------------------------------------------------------------------------------------------

_LEVELS = (
    "'WAITING','PROCESSING','REPORTING','TERMINATING','SUCCESS','FAILURE','ERROR','WARNING','STOPPED','UNEXECUTED'"
)
_ENDED = "'SUCCESS','FAILURE','ERROR','WARNING','STOPPED','UNEXECUTED'"

executions = Table(
    "executions",
    metadata,
    _id(),
    _ref("company_id", "companies", index=True),
    _ref("plan_id", "plans"),
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('running', 'stopping', 'finished')", name="state"),
        nullable=False,
        server_default="running",
    ),
    _text("level", None),
    _ref("user_id", "users", nullable=True),
    # How the plan was when it started; a later change of the plan does not change a running execution.
    _number("parallel", 1),
    _number("retries"),
    _number("timeout_seconds", 600),
    _text("screenshots", "ONLY_FAILURE"),
    _flag("video", default=False),
    # The environments that its jobs use; 0 stands for none. Dispatch looks for waiting jobs of each.
    Column("environment_ids", ARRAY(BigInteger), nullable=False, server_default="{}"),
    _text("commit", None),
    # Where the caller reached the server, for the links that callbacks carry.
    _text("base_url"),
    # The last event's number.
    _number("sequence"),
    _at("start_at", default=True),
    _at("end_at"),
    Index("uq_executions_plan_id_unfinished", "plan_id", unique=True, postgresql_where=text("state <> 'finished'")),
    Index("ix_executions_plan_id_id", "plan_id", "id"),
)

jobs = Table(
    "jobs",
    metadata,
    _id(),
    _ref("execution_id", "executions"),
    _ref("scenario_id", "scenarios", index=True),
    _ref("environment_id", "environments", nullable=True),
    _number("position"),
    Column("level", Text, CheckConstraint(f"level IN ({_LEVELS})", name="level"), nullable=False),
    _text("message", None),
    _number("attempts"),
    _number("infrastructure"),
    _number("epoch"),
    _at("start_at"),
    _at("end_at"),
    CheckConstraint(f"(end_at IS NOT NULL) = (level IN ({_ENDED}))", name="end"),
    Index("ix_jobs_waiting", "execution_id", "environment_id", "position", postgresql_where=text("level = 'WAITING'")),
    Index("ix_jobs_execution_id_level", "execution_id", "level"),
)

attempts = Table(
    "attempts",
    metadata,
    _id(),
    _ref("job_id", "jobs", index=True),
    Column("number", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('leased', 'running', 'reporting', 'done', 'lost', 'cancelled')", name="state"),
        nullable=False,
        server_default="leased",
    ),
    _text("outcome", None),
    _text("level", None),
    _text("message", None),
    _ref("hub_id", "hubs", nullable=True),
    Column("worker_id", BigInteger, ForeignKey("workers.id", ondelete="SET NULL")),
    # The number of the Procrastinate job that carries it, for cancelling.
    Column("queue_job_id", BigInteger),
    _text("session_id", None),
    # {name: size in bytes} of what the artifact store has for it.
    _json("artifacts"),
    _at("leased_at", default=True),
    _at("lease_until", nullable=False),
    _at("start_at"),
    _at("end_at"),
    UniqueConstraint("job_id", "number"),
    Index(
        "uq_attempts_job_id_live",
        "job_id",
        unique=True,
        postgresql_where=text("state IN ('leased', 'running', 'reporting')"),
    ),
    Index("ix_attempts_live", "state", postgresql_where=text("state IN ('leased', 'running', 'reporting')")),
)

cases = Table(
    "cases",
    metadata,
    _id(),
    _ref("attempt_id", "attempts", index=True),
    Column("name", Text, nullable=False),
    _text("classname"),
    Column("status", Text, nullable=False),
    Column("milliseconds", Integer, nullable=False),
    _text("message", None),
    _text("detail", None),
)

# A link that shows one result to whoever has it.
shares = Table(
    "shares",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    _ref("job_id", "jobs", index=True),
    _at("expires_at", nullable=False),
)

# --- what others are told --------------------------------------------------------------------------------------------

events = Table(
    "events",
    metadata,
    Column("execution_id", BigInteger, ForeignKey("executions.id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("type", Text, nullable=False),
    _json("data"),
    _at("created_at", default=True),
)

callbacks = Table(
    "callbacks",
    metadata,
    _id(),
    _ref("execution_id", "executions"),
    Column("url", Text, nullable=False),
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('active', 'gone', 'exhausted')", name="state"),
        nullable=False,
        server_default="active",
    ),
    # The last event that was delivered, and how often the next one was tried.
    _number("delivered"),
    _number("tries"),
    _at("next_try_at"),
    _at("created_at", default=True),
    UniqueConstraint("execution_id", "url"),
)

deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    _ref("callback_id", "callbacks", index=True),
    Column("sequence", Integer, nullable=False),
    Column("try", Integer, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Column("status", Integer),
    _text("error", None),
    _text("answer"),
    _number("milliseconds"),
    _at("sent_at", default=True),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", BigInteger, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("status", Integer),
    Column("answer", JSONB),
    _at("created_at", default=True),
)
