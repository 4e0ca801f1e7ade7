-- The statements of the service, by name. `-- name: what it does` starts one.

-- record: everything that some bodies hold, in one statement (see migrations/0002_record.sql)
select arrival, payload_id, fresh, changed
from record(%(arrivals)s, %(bodies)b, %(reports)s, %(rejects)s, %(batches)s);

-- publish_setting: the views know the settings of the running processes
insert into setting (name, value) values (%(name)s, %(value)s)
on conflict (name) do update set value = excluded.value where setting.value <> excluded.value;

-- message: current status and history of a message at all its destinations, as one JSON text, NULL if unknown
select json_build_object(
  'provider', %(provider)s::text,
  'message_id', %(message_id)s::text,
  'messages', json_agg(row_to_json(m)::jsonb || jsonb_build_object('history', (
    select coalesce(jsonb_agg(to_jsonb(d) - array['id', 'digest', 'provider', 'message_id', 'destination', 'item']
                              order by d.received_at, d.id), '[]')
    from delivery_report d
    where (d.provider, d.message_id, d.destination) = (m.provider, m.message_id, m.destination)
  )) order by m.destination)
)::text
from message_status m
where provider = %(provider)s and message_id = %(message_id)s
having count(*) > 0;

-- acquire_lease: become the one consumer of a store, unless another is or it rests after a failure
insert into pull_lease as lease (provider, endpoint, holder, leased_until)
values (%(provider)s, %(endpoint)s, %(holder)s, now() + %(lease)s)
on conflict (provider, endpoint) do update set holder = excluded.holder, leased_until = excluded.leased_until
where (lease.leased_until < now() or lease.holder = excluded.holder) and lease.not_before <= now()
returning true;

-- release_lease: let others have the store; after a failure nobody reads it before the rest is over
update pull_lease set
  leased_until = now(),
  failures = case when %(failed)s then failures + 1 else 0 end,
  not_before = case when %(failed)s
    then now() + coalesce(%(retry_after)s, least(%(interval)s * power(2, least(failures, 20)), interval '15 minutes'))
    else '-infinity' end
where provider = %(provider)s and endpoint = %(endpoint)s and holder = %(holder)s;

-- begin_pull: the intent, committed before the request; nothing when the lease is no longer ours
with lease as (
  update pull_lease set leased_until = now() + %(lease)s
  where provider = %(provider)s and endpoint = %(endpoint)s and holder = %(holder)s and leased_until >= now()
  returning 1
)
insert into pull (provider, endpoint, source, channel, batch_id, params)
select %(provider)s, %(endpoint)s, %(source)s, %(channel)s, %(batch_id)s, %(params)s from lease
returning id;

-- pulled_since: whether the last good answer is younger
select true as found from pull
where provider = %(provider)s and endpoint = %(endpoint)s and outcome = 'ok' and started_at > now() - %(age)s
limit 1;

-- answer_pull: the raw answer, committed before anything is made of it
with answered as (
  update pull set finished_at = clock_timestamp(), outcome = %(outcome)s, http_status = %(http_status)s, error = %(error)s
  where id = %(pull_id)s
  returning id, provider, source, channel
)
insert into payload (received_at, provider, source, channel, content_type, body, pull_id, kind, error)
select clock_timestamp(), provider, source, channel, %(content_type)s, without_forgotten(%(body)b::bytea), id, %(kind)s, %(error)s
from answered
where %(body)b::bytea is not null
returning id;

-- finish_pull: what the answer held
update pull set entries = %(entries)s, fresh = %(fresh)s, outcome = %(outcome)s, error = %(error)s where id = %(pull_id)s;

-- interrupt_pulls: whose process died between intent and answer
update pull set outcome = 'interrupted', finished_at = now()
where outcome = 'started' and started_at < now() - %(lease)s
returning id, provider, endpoint, started_at;

-- due_batches: what is to be asked about now, the longest waiting first
select batch_id from sent_batch
where provider = %(provider)s and next_pull_at <= now()
order by next_pull_at
limit %(limit)s;

-- batch_answered: next question after a growing time, or never when all is final or too old
update sent_batch b set
  pulls = pulls + 1, failures = 0, pulled_at = now(),
  next_pull_at = case
    when %(entries)s >= total and not exists (
      select from message_status m where (m.provider, m.batch_id) = (b.provider, b.batch_id) and not m.is_final) then null
    when learned_at + %(give_up)s <= now() then null
    else now() + greatest(%(interval)s, least((now() - learned_at) / 2, interval '4 hours')) end
where provider = %(provider)s and batch_id = %(batch_id)s;

-- batch_failed: ask again later, less and less often
update sent_batch set
  failures = failures + 1, pulled_at = now(),
  next_pull_at = case
    when learned_at + %(give_up)s <= now() then null
    else now() + least(%(interval)s * power(2, least(failures, 20)), interval '1 hour') end
where provider = %(provider)s and batch_id = %(batch_id)s;

-- forget_checks: messages that got their final report, or are too old for the log
delete from message_check c
where provider = %(provider)s and endpoint = %(endpoint)s and not exists (
  select from message_status m
  where (m.provider, m.message_id) = (c.provider, c.message_id) and not m.is_final and m.first_seen_at > now() - %(window)s);

-- note_overdue: messages that reports did not answer and that the log still knows
insert into message_check (provider, endpoint, message_id)
select distinct provider, %(endpoint)s, message_id from message_status
where provider = %(provider)s and not is_final and (channel is null or channel = coalesce(%(channel)s, channel))
  and first_seen_at between now() - %(window)s and now() - %(overdue_after)s
on conflict do nothing;

-- due_checks: what is looked up now, the longest waiting first
select message_id from message_check
where provider = %(provider)s and endpoint = %(endpoint)s and next_check_at <= now()
order by next_check_at
limit %(limit)s;

-- checked: next look after a growing time
update message_check set
  checks = checks + 1, checked_at = now(),
  next_check_at = now() + least(%(interval)s * power(2, least(checks, 20)), interval '4 hours')
where provider = %(provider)s and endpoint = %(endpoint)s and message_id = any(%(message_ids)s);

-- order_repair: one-time pulls that may have lost reports, once the store answers again: the log is searched for all that was sent in its window before them, and a little longer, as the provider's clock may be ahead
with lost as (
  update pull set repair_at = now()
  where provider = %(provider)s and endpoint = %(repairs)s and source = 'pull' and repair_at is null
    and started_at > now() - %(window)s
    and (outcome in ('network_error', 'unreadable', 'interrupted') or http_status >= 500)
    and id < (select max(id) from pull where provider = %(provider)s and endpoint = %(repairs)s and outcome = 'ok')
  returning started_at, finished_at
)
insert into log_range (provider, endpoint, sent_since, sent_until)
select %(provider)s, %(endpoint)s, min(started_at) - %(window)s, max(finished_at) + interval '5 minutes'
from lost having count(*) > 0;

-- next_range: what of a log is searched now; what is older than its window it does not know any more
select id, case when cursor is null then greatest(sent_since, now() - %(window)s) else sent_since end as sent_since,
       sent_until, cursor
from log_range
where provider = %(provider)s and endpoint = %(endpoint)s
order by id
limit 1;

-- forget_ranges: what the log does not know any more
delete from log_range
where provider = %(provider)s and endpoint = %(endpoint)s and sent_until < now() - %(window)s;

-- continue_range: the same question goes on at a cursor, or from the start again
update log_range set sent_since = %(since)s, cursor = %(cursor)s where id = %(id)s;

-- halve_range: it holds more than a page
with gone as (
  delete from log_range where id = %(id)s returning provider, endpoint, sent_since, sent_until
)
insert into log_range (provider, endpoint, sent_since, sent_until)
select gone.provider, gone.endpoint, half.since, half.until
from gone
cross join lateral (select greatest(gone.sent_since, now() - %(window)s)) s (since)
cross join lateral (values (s.since, s.since + (gone.sent_until - s.since) / 2),
                           (s.since + (gone.sent_until - s.since) / 2, gone.sent_until)) half (since, until);

-- drop_range: it is searched
delete from log_range where id = %(id)s;

-- drop_batch: an id that cannot be asked about
update sent_batch set next_pull_at = null where provider = %(provider)s and batch_id = %(batch_id)s;

-- unread: bodies that were stored but not read, because the process died in between
select p.id, p.provider, p.source::text, p.channel, p.content_type, p.body, pull.batch_id
from payload p left join pull on pull.id = p.pull_id
where p.kind is null and p.received_at < now() - interval '1 minute'
order by p.id
limit %(limit)s;

-- to_replay: bodies that could not be read, or with items in quarantine
select p.id, p.provider, p.source::text, p.channel, p.content_type, p.body, pull.batch_id
from payload p left join pull on pull.id = p.pull_id
where p.id > %(after)s
  and (p.kind is null or p.kind = 'unreadable' or exists (select from quarantine q where q.payload_id = p.id))
order by p.id
limit %(limit)s;

-- count_to_replay: how many these are
select count(*) from payload p
where kind is null or kind = 'unreadable' or exists (select from quarantine q where q.payload_id = p.id);

-- rebuild: the status rows of the next messages again from their history
select (last).provider, (last).message_id, (last).destination, messages, changed
from rebuild(row(%(provider)s, %(message_id)s, %(destination)s)::message_key, %(limit)s);

-- count_messages: an estimate is enough for a progress bar
select greatest(reltuples, 0)::bigint from pg_class where oid = 'message_status'::regclass;

-- prunable: what prune would free
select count(*) as payloads, coalesce(sum(octet_length(body)), 0)::bigint as bytes from payload p
where received_at < now() - %(retention)s and kind is not null and kind <> 'unreadable'
  and not exists (select from quarantine q where q.payload_id = p.id);

-- prune: raw bodies past their retention, some at a time; what still waits for a fix stays
delete from payload where id in (
  select id from payload p
  where received_at < now() - %(retention)s and kind is not null and kind <> 'unreadable'
    and not exists (select from quarantine q where q.payload_id = p.id)
  order by received_at limit %(limit)s);

-- status_messages: messages by provider and status
select provider, status::text, count(*) as messages, max(updated_at) as last_update from message_status
group by provider, status order by provider, status;

-- status_gaps: open gaps by provider and what happens next
select provider, next_step, count(*) as gaps, min(overdue_since) as oldest from open_gaps
group by provider, next_step order by provider, next_step;

-- status_pulls: the last pull of every store
select distinct on (provider, endpoint) provider, endpoint, started_at, outcome, http_status, entries, fresh, error from pull
order by provider, endpoint, started_at desc;

-- status_waiting: bodies and items that wait for somebody
select (select count(*) from payload where kind is null) as unread,
       (select count(*) from payload where kind = 'unreadable') as unreadable,
       (select count(*) from quarantine) as quarantined,
       (select count(*) from pull where outcome = 'interrupted') as interrupted_pulls,
       (select max(received_at) from payload where source = 'push') as last_push;

-- count_export: how many messages an export has
select count(*) as messages from message_status
where coalesce(sent_at, first_seen_at) >= %(since)s and coalesce(sent_at, first_seen_at) < %(until)s;

-- export: the messages of a time
select * from message_status
where coalesce(sent_at, first_seen_at) >= %(since)s and coalesce(sent_at, first_seen_at) < %(until)s;

-- seed_infobip_status_code: from the code list
insert into infobip_status_code
select id, group_id, group_name, name, final, description
from json_to_recordset(%(rows)s) as c (id text, group_id int, group_name text, name text, final boolean, description text)
on conflict (status_code, group_id) do update set
  group_name = excluded.group_name, name = excluded.name, is_final = excluded.is_final, description = excluded.description;

-- seed_infobip_error_code: from the code list
insert into infobip_error_code
select id, group_id, group_name, name, permanent, description
from json_to_recordset(%(rows)s) as c (id text, group_id int, group_name text, name text, permanent boolean, description text)
on conflict (error_code, group_id) do update set
  group_name = excluded.group_name, name = excluded.name, is_permanent = excluded.is_permanent,
  description = excluded.description;

-- seed_messaging_plus_code: from the code list
insert into messaging_plus_code (code, class, is_final, description)
select code_hex, class, nullif(final, 'unknown')::boolean, description
from json_to_recordset(%(rows)s) as c (code_hex text, class text, final text, description text)
on conflict (code) do update set
  class = excluded.class, is_final = excluded.is_final, description = excluded.description;

-- seed_mobile_network: from the list of countries and networks
insert into mobile_network
select mcc_mnc, nullif(country_code, ''), country, nullif(operator, '')
from json_to_recordset(%(rows)s) as n (mcc_mnc text, country_code text, country text, operator text)
on conflict (mcc_mnc) do update set
  country_code = excluded.country_code, country = excluded.country, operator = excluded.operator;

-- create_migration_table: inside the lock, where it cannot race
create table if not exists migration (
  version text primary key, sha256 text not null, applied_at timestamptz not null default now());
comment on table migration is 'The migrations that were applied.';
comment on column migration.version is 'Name of the file below sql/migrations/.';
comment on column migration.sha256 is 'Hash of the file as it was applied.';
comment on column migration.applied_at is 'When.';

-- migration_table: whether there is any migration yet
select to_regclass('migration') is null as missing;

-- migrations: what was applied
select version, sha256 from migration;

-- add_migration: one more
insert into migration (version, sha256) values (%(version)s, %(sha256)s);

-- refresh_messaging_plus_code: the provider's own words, from its live list
insert into messaging_plus_code (code, class, is_final, description, provider_description, refreshed_at)
select code, 'unknown', null, description, description, now()
from json_to_recordset(%(rows)s) as c (code text, description text)
on conflict (code) do update set provider_description = excluded.provider_description, refreshed_at = now();

-- grant_roles: what roles may see, on all that is there now; gives the roles that are missing
select role from grant_roles() as role;

-- prunable_history: final messages for which nothing came for long, and their reports
select count(distinct (d.provider, d.message_id, d.destination)) as messages, count(*) as reports,
       coalesce(sum(pg_column_size(d)), 0)::bigint as bytes
from delivery_report d
join message_status m using (provider, message_id, destination)
where m.is_final and m.updated_at < now() - %(retention)s and d.received_at < now() - %(retention)s;

-- prune_history: the next stretch of it
select last, messages, reports from prune_history(%(after)s, %(retention)s, %(limit)s);

-- prunable_waiting: bodies and items for which no fix came
select (select count(*) from payload where received_at < now() - %(retention)s
          and (kind is null or kind = 'unreadable' or id in (select payload_id from quarantine))) as payloads,
       (select count(*) from quarantine where received_at < now() - %(retention)s) as quarantined;

-- prune_quarantine: some at a time, and before their bodies
delete from quarantine where id in (
  select id from quarantine where received_at < now() - %(retention)s order by id limit %(limit)s);

-- prune_waiting: unread and unreadable bodies, some at a time
delete from payload where id in (
  select id from payload p
  where received_at < now() - %(retention)s and (kind is null or kind = 'unreadable')
    and not exists (select from quarantine q where q.payload_id = p.id)
  order by received_at limit %(limit)s);

-- prunable_rows: rows about the reconciler's work
select (select count(*) from pull where started_at < now() - %(retention)s) as pulls,
       (select count(*) from sent_batch where learned_at < now() - %(retention)s and destinations <> '{}') as batches,
       (select count(*) from message_check where coalesce(checked_at, next_check_at) < now() - %(retention)s)
         + (select count(*) from log_range where sent_until < now() - %(retention)s) as checks;

-- prune_pulls: some at a time
delete from pull where id in (select id from pull where started_at < now() - %(retention)s order by id limit %(limit)s);

-- prune_batches: batches stay for their counts, where they went does not
update sent_batch set destinations = '{}' where (provider, batch_id) in (
  select provider, batch_id from sent_batch where learned_at < now() - %(retention)s and destinations <> '{}' limit %(limit)s);

-- prune_checks: look-ups of messages that no log knows any more
delete from message_check where (provider, endpoint, message_id) in (
  select provider, endpoint, message_id from message_check
  where coalesce(checked_at, next_check_at) < now() - %(retention)s limit %(limit)s);

-- prune_ranges: the same for stretches of a log
delete from log_range where id in (select id from log_range where sent_until < now() - %(retention)s limit %(limit)s);

-- begin_erasure: the tombstone
select id, alias from begin_erasure(%(destination)s);

-- erase_messages: status rows and history of a destination get its alias
select messages, reports from erase_messages(%(destination)s, %(alias)s);

-- erase_bodies: the next raw bodies after an id
select last, bodies from erase_bodies(%(destination)s, %(alias)s, %(after)s, %(limit)s);

-- erase_elsewhere: all other tables
select touched from erase_elsewhere(%(destination)s, %(alias)s) as touched;

-- finish_erasure: what was found, for the auditor
update erasure set finished_at = now(), messages = %(messages)s, reports = %(reports)s, bodies = %(bodies)s,
  other_rows = %(other_rows)s
where id = %(id)s;

-- count_payloads: an estimate is enough for a progress bar
select greatest(reltuples, 0)::bigint from pg_class where oid = 'payload'::regclass;
