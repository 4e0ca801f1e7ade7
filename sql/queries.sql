-- The statements of the service, by name. `-- name: what it does` starts one.

-- record: everything that some bodies hold, in one statement (see migrations/0002_record.sql); nothing where packed ones must be opened
select arrival, payload_id, fresh, changed
from record(%(arrivals)s, %(bodies)b, %(reports)s, %(rejects)s, %(batches)s);

-- make_partitions: those of now and of the days to come; the reconciler may be off for two weeks
select name from make_partitions(now(), now() + interval '14 days') as name;

-- publish_setting: the views know the settings of the running processes
insert into setting (name, value) values (%(name)s, %(value)s)
on conflict (name) do update set value = excluded.value where setting.value <> excluded.value;

-- message: current status and history of a message at its destinations, the first so many, as one JSON text; NULL if unknown
select json_build_object(
  'provider', %(provider)s::text,
  'message_id', %(message_id)s::text,
  'has_more', count(*) > %(limit)s,
  'messages', json_agg(to_jsonb(m) - 'n' || jsonb_build_object('history', (
    select coalesce(jsonb_agg(to_jsonb(d) - array['digest', 'provider', 'message_id', 'destination', 'item']
                              order by d.received_at, d.payload_id, d.item), '[]')
    from history_of(array[row(m.provider, m.message_id, m.destination)::message_key], array[m.first_seen_at]) d
  )) order by m.n) filter (where m.n <= %(limit)s)
)::text
from (
  select *, row_number() over (order by destination) as n from message_status
  where provider = %(provider)s and message_id = %(message_id)s
  order by destination
  limit %(limit)s + 1
) m
having count(*) > 0;

-- acquire_lease: become the one consumer of a store, unless another is or it rests after a failure
insert into pull_lease as lease (provider, endpoint, holder, leased_until)
values (%(provider)s, %(endpoint)s, %(holder)s, now() + %(lease)s)
on conflict (provider, endpoint) do update set holder = excluded.holder, leased_until = excluded.leased_until
-- Twice the longest that is ever given is of a clock that went back; a little more is of somebody who came before us.
where (lease.leased_until not between now() and now() + 2 * %(lease)s or lease.holder = excluded.holder)
  and lease.not_before not between now() and now() + interval '2 hours'
returning true;

-- release_lease: let others have the store; after a failure nobody reads it before the rest is over
update pull_lease set
  leased_until = now(),
  failures = case when %(failed)s then failures + 1 else 0 end,
  not_before = case when %(failed)s
    then now() + coalesce(%(retry_after)s, least(%(interval)s * power(2, least(failures, 20)), interval '15 minutes'))
    else '-infinity' end
where provider = %(provider)s and endpoint = %(endpoint)s and holder = %(holder)s;

-- begin_pulls: the intents, committed before the requests; nothing when the lease is no longer ours
with lease as (
  update pull_lease set leased_until = now() + %(lease)s
  where provider = %(provider)s and endpoint = %(endpoint)s and holder = %(holder)s and leased_until >= now()
  returning 1
)
insert into pull (provider, endpoint, source, channel, batch_id, one_time, params)
select %(provider)s, %(endpoint)s, source, channel, batch_id, one_time, params
from lease cross join json_to_recordset(%(pulls)s) as p (
  n int, source report_source, channel text, batch_id text, one_time boolean, params jsonb)
order by n
returning id;

-- pulled_since: whether the last good answer is younger
select true as found from pull
where provider = %(provider)s and endpoint = %(endpoint)s and outcome = 'ok' and started_at > now() - %(age)s
limit 1;

-- answer_pulls: the raw answers, committed before anything is made of them; gives the ids of the bodies, NULL where nothing came; does and gives nothing where packed ones must be opened
with came as (
  select * from json_to_recordset(%(answers)s) as a (
    n int, pull_id bigint, outcome text, http_status int, error text, content_type text, kind text, has_body boolean)
  where (select not must_be_opened(%(bodies)b::bytea[]))
), answered as (
  update pull set finished_at = clock_timestamp(), outcome = came.outcome, http_status = came.http_status, error = came.error
  from came where pull.id = came.pull_id
  returning pull.id, pull.provider, pull.source, pull.channel
), kept as (
  insert into payload (received_at, provider, source, channel, content_type, body, pull_id, kind, error)
  select clock_timestamp(), provider, source, channel, content_type, without_forgotten((%(bodies)b::bytea[])[n], source, kind),
         pull_id, kind, error
  from came join answered on answered.id = pull_id
  where has_body
  returning id, pull_id
)
select kept.id as payload_id from came left join kept using (pull_id) order by n;

-- finish_pulls: what the answers held; one that did not come whole stays that, whatever could be read of it
update pull p set entries = a.entries, fresh = a.fresh,
  outcome = case p.outcome when 'network_error' then p.outcome else a.outcome end,
  error = case p.outcome when 'network_error' then p.error else a.error end
from json_to_recordset(%(pulls)s) as a (id bigint, entries int, fresh int, outcome text, error text)
where p.id = a.id;

-- interrupt_pulls: whose process died between intent and answer
update pull set outcome = 'interrupted', finished_at = now()
where outcome = 'started' and started_at < now() - %(lease)s
returning id, provider, endpoint, started_at;

-- due_batches: what is to be asked about now, the longest waiting first; size is in messages, as far as it is known
select batch_id, coalesce(total, cardinality(destinations), 0) as size from sent_batch
where provider = %(provider)s and next_pull_at <= now()
order by next_pull_at
limit %(limit)s;

-- schedule_batches: after an answer (with its entries) the next question comes after a growing time, or never when all that we know of is there and final, or too old; without one, less and less often
update sent_batch b set
  pulls = pulls + is_answered::int, failures = case when is_answered then 0 else failures + 1 end, pulled_at = now(),
  is_named = b.is_named or is_answered and known.is_named,
  next_pull_at = case
    -- no entries at all: it is still to be sent, or the provider has only begun with it
    when entries >= asked.total and asked.total > 0 and known.is_named and not known.is_open then null
    when asked.since + %(give_up)s <= now() then null
    when is_answered then now() + greatest(%(interval)s, least((now() - asked.since) / 2, interval '4 hours'))
    else now() + least(%(interval)s * power(2, least(failures, 20)), interval '1 hour') end
from (
  select provider, batch_id, total, destinations, greatest(learned_at, reopened_at) as since, asked.entries,
         asked.entries is not null as is_answered
  from sent_batch join json_to_recordset(%(asked)s) as asked (batch_id text, entries int) using (batch_id)
  where provider = %(provider)s
  order by provider, batch_id  -- locked in the order of their keys, as record() does
  for update of sent_batch
) asked
cross join lateral (
  select batch_is_named(asked.provider, asked.batch_id, asked.destinations) as is_named,
         batch_is_open(asked.provider, asked.batch_id) as is_open
) known
where (b.provider, b.batch_id) = (asked.provider, asked.batch_id);

-- note_overdue: messages that reports did not answer and that the log still knows, some at a time
select note_overdue(%(provider)s, %(endpoint)s, %(channel)s, %(window)s, %(overdue_after)s, %(limit)s) as noted;

-- due_checks: what is looked up now, the longest waiting first; not those that got their final report, or are too old for the log: these are forgotten when it is their turn
with due as materialized (
  select message_id,
         -- as no condition: by its key, never by the index of all that is open
         (select bool_or(not m.is_final and waiting_since(m.first_seen_at, m.sent_at) > now() - %(window)s)
          from message_status m where (m.provider, m.message_id) = (c.provider, c.message_id)) is true as is_open
  from message_check c
  where provider = %(provider)s and endpoint = %(endpoint)s and next_check_at <= now()
  order by next_check_at
  limit %(limit)s
), forgotten as (
  delete from message_check
  where provider = %(provider)s and endpoint = %(endpoint)s
    and message_id = any (array(select message_id from due where not is_open))
)
select message_id, is_open from due;

-- checked: next look after a growing time
update message_check set
  checks = checks + 1, checked_at = now(),
  next_check_at = now() + least(%(interval)s * power(2, least(checks, 20)), interval '4 hours')
where provider = %(provider)s and endpoint = %(endpoint)s and message_id = any(%(message_ids)s);

-- order_repair: one-time pulls that may have lost reports, once the store answers again: the log is searched for all that was sent in its window before them, and a little longer, as the provider's clock may be ahead
with lost as materialized (
  select id, started_at, finished_at from pull
  where provider = %(provider)s and endpoint = %(repairs)s and may_have_lost and repair is null
    and started_at > now() - %(window)s
    and id < (select max(id) from pull where provider = %(provider)s and endpoint = %(repairs)s and outcome = 'ok')
), ordered as (
  update pull set repair = 'ordered', repair_id = (select max(id) from lost) where id in (select id from lost)
)
insert into log_range (provider, endpoint, repair_id, sent_since, sent_until)
select %(provider)s, %(endpoint)s, max(id), min(started_at) - %(window)s, max(finished_at) + interval '5 minutes'
from lost having count(*) > 0;

-- next_range: what of a log is searched now
select id, sent_since, sent_until, cursor from log_range
where provider = %(provider)s and endpoint = %(endpoint)s
order by id
limit 1;

-- forget_ranges: what the log does not know any more; an hour of two days more or less is what clocks and our own pace cost
with gone as (
  delete from log_range
  where provider = %(provider)s and endpoint = %(endpoint)s and sent_until < now() - %(window)s
  returning repair_id
), cut as (
  update log_range r set sent_since = now() - %(window)s
  from log_range old
  where r.id = old.id and r.provider = %(provider)s and r.endpoint = %(endpoint)s and r.cursor is null
    and r.sent_since < now() - %(window)s and r.sent_until >= now() - %(window)s
  returning r.repair_id, old.sent_since
)
update pull set repair = 'incomplete'
where repair_id in (select repair_id from gone
                    union all select repair_id from cut where sent_since < now() - %(window)s - interval '1 hour');

-- continue_range: the same question goes on at a cursor
update log_range set cursor = %(cursor)s where id = %(id)s;

-- halve_range: it holds more than a page, or what the provider cannot tell, or its cursor is refused
with gone as (
  delete from log_range where id = %(id)s returning provider, endpoint, repair_id, sent_since, sent_until
)
insert into log_range (provider, endpoint, repair_id, sent_since, sent_until)
select gone.provider, gone.endpoint, gone.repair_id, half.since, half.until
from gone
cross join lateral (select sent_since + (sent_until - sent_since) / 2) middle (at)
cross join lateral (values (sent_since, middle.at), (middle.at, sent_until)) half (since, until);

-- drop_range: it is searched, or cannot be searched any further
with gone as (delete from log_range where id = %(id)s returning id, repair_id)
update pull set repair = case when %(searched)s then 'searched' else 'incomplete' end
from gone
where pull.repair_id = gone.repair_id and repair = 'ordered'
  and not (%(searched)s and exists (select from log_range r where r.repair_id = gone.repair_id and r.id <> gone.id));

-- drop_batch: an id that cannot be asked about
update sent_batch set next_pull_at = null where provider = %(provider)s and batch_id = %(batch_id)s;

-- unread: bodies that were stored but not read, because the process died in between, as many as fit into some bytes, and the one that does not fit any more
select id, provider, source, channel, content_type, body, pull_id, batch_id
from (
  select p.id, p.provider, p.source::text, p.channel, p.content_type, p.body, p.pull_id, pull.batch_id,
         sum(octet_length(p.body)) over (order by p.id rows between unbounded preceding and 1 preceding) as before
  from (
    select * from payload p
    where kind is null and received_at < now() - interval '1 minute'
    order by id limit %(limit)s
  ) p
  left join pull on pull.id = p.pull_id
) bodies
where coalesce(before, 0) < %(bytes)s
order by id;

-- to_replay: bodies that could not be read, or with items in quarantine, as many as fit into some bytes, and the one that does not fit any more
select id, provider, source, channel, content_type, body, batch_id
from (
  select p.id, p.provider, p.source::text, p.channel, p.content_type, p.body, pull.batch_id,
         sum(octet_length(p.body)) over (order by p.id rows between unbounded preceding and 1 preceding) as before
  from (
    select * from payload p
    where id > %(after)s
      and (kind is null or kind = 'unreadable' or exists (select from quarantine q where q.payload_id = p.id))
    order by id limit %(limit)s
  ) p
  left join pull on pull.id = p.pull_id
) bodies
where coalesce(before, 0) < %(bytes)s
order by id;

-- count_to_replay: how many these are
select count(*) from payload p
where kind is null or kind = 'unreadable' or exists (select from quarantine q where q.payload_id = p.id);

-- rebuild: the status rows of the next messages again from their history
select last, messages, changed from rebuild(%(after)s, %(limit)s);

-- stored_bodies: the next stored bodies that may hold reports, as many as fit into some bytes, and the one that does not fit any more; not what no reader was asked about (codes, error), nor what `forget` has emptied
select id, received_at, provider, source, channel, content_type, body, batch_id
from (
  select p.id, p.received_at, p.provider, p.source::text, p.channel, p.content_type, p.body, pull.batch_id,
         sum(octet_length(p.body)) over (order by p.id rows between unbounded preceding and 1 preceding) as before
  from (
    select * from payload
    where id > %(after)s and id <= %(last)s and coalesce(kind, '') not in ('codes', 'error') and octet_length(body) > 0
    order by id limit %(limit)s
  ) p
  left join pull on pull.id = p.pull_id
) bodies
where coalesce(before, 0) < %(bytes)s
order by id;

-- stored_ids: the first and the last body
select coalesce(min(id), 1) as first, coalesce(max(id), 0) as last from payload;

-- count_messages: an estimate is enough for a progress bar
select greatest(reltuples, 0)::bigint from pg_class where oid = 'message_status'::regclass;

-- prunable: what prune would free
select count(*) as payloads, coalesce(sum(octet_length(body)), 0)::bigint as bytes from payload p
where received_at < horizon(%(retention)s) and kind is not null and kind <> 'unreadable'
  and not exists (select from quarantine q where q.payload_id = p.id);

-- drop_payload: raw bodies past their retention, a partition at a time; what still waits for a fix stays
select dropped, bodies from drop_payload(%(retention)s);

-- prune: those outside of partitions, or beside much that waits, some at a time
delete from payload where received_at < horizon(%(retention)s) and id in (
  select id from payload p
  where received_at < horizon(%(retention)s) and kind is not null and kind <> 'unreadable'
    and not exists (select from quarantine q where q.payload_id = p.id)
  limit %(limit)s);

-- fold_rollups: what has changed goes into the rollups that views read, some at a time
select fold_rollups(%(limit)s) as folded;

-- status_messages: messages by provider and status, from the rollups and what is not folded into them yet
select provider, status, sum(n)::bigint as messages
from (
  select provider, delivered, undeliverable, expired, rejected, sent, pending from rollup_network
  union all
  select provider, delivered, undeliverable, expired, rejected, sent, pending from network_change where is_pending
) counted
cross join lateral (values ('delivered', delivered), ('undeliverable', undeliverable), ('expired', expired),
                           ('rejected', rejected), ('sent', sent), ('pending', pending)) by_status (status, n)
group by provider, status having sum(n) <> 0 order by provider, status;

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
       (select count(*) from pull where may_have_lost and repair is distinct from 'searched') as lost_pulls,
       (select count(*) from rollup_delta) as unfolded,
       -- not the highest of all times: of ids there is an index, and of a week few partitions
       (select received_at from payload where source = 'push' and received_at > now() - interval '7 days'
        order by id desc limit 1) as last_push;

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

-- grant_roles: what roles may see, on all that is there now; gives what is missing for that
select missing from grant_roles() as missing;

-- prunable_history: whole partitions, and what is older outside of them
with gone as materialized (select name from partitions('delivery_report') where until <= horizon(%(retention)s)),
outside as materialized (
  select count(*) as reports, coalesce(sum(pg_column_size(d)), 0) as bytes from delivery_report_default d
  where received_at < horizon(%(retention)s)
)
select (outside.reports + (select count(*) from delivery_report
                           where received_at < horizon(%(retention)s) and tableoid in (select name from gone))) as reports,
       (outside.bytes + coalesce((select sum(pg_total_relation_size(name)) from gone), 0))::bigint as bytes
from outside;

-- drop_history: reports past their retention, a partition at a time; messages that were first seen before it are frozen
select dropped, reports from drop_history(%(retention)s);

-- prune_reports: those outside of partitions, some at a time; their messages are frozen by then
delete from delivery_report_default where ctid = any(array(
  select ctid from delivery_report_default where received_at < (select since from kept_history) limit %(limit)s));

-- prunable_waiting: bodies and items for which no fix came
select (select count(*) from payload where received_at < horizon(%(retention)s)
          and (kind is null or kind = 'unreadable' or id in (select payload_id from quarantine))) as payloads,
       (select count(*) from quarantine where received_at < horizon(%(retention)s)) as quarantined;

-- prune_quarantine: some at a time, and before their bodies
delete from quarantine where id in (
  select id from quarantine where received_at < horizon(%(retention)s) order by id limit %(limit)s);

-- prune_waiting: unread and unreadable bodies, some at a time
delete from payload where received_at < horizon(%(retention)s) and id in (
  select id from payload p
  where received_at < horizon(%(retention)s) and (kind is null or kind = 'unreadable')
    and not exists (select from quarantine q where q.payload_id = p.id)
  limit %(limit)s);

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

-- known_destination: whether anything was sent to it, or it was forgotten before
select exists (select from message_status where destination = %(destination)s)
    or exists (select from delivery_report where destination = %(destination)s)
    or exists (select from sent_batch where %(destination)s = any (destinations))
    or exists (select from erasure where destination_hash = keyed_hash(%(destination)s)) as is_known;

-- begin_erasure: the tombstone
select id, alias from begin_erasure(%(destination)s);

-- erase_messages: status rows and history of a destination get its alias
select messages, reports from erase_messages(%(destination)s, %(alias)s);

-- erase_bodies: the next raw bodies after an id
select last, bodies from erase_bodies(%(destination)s, %(alias)s, %(after)s, %(limit)s);

-- packed_bodies: the next packed bodies after an id, as many as fit into some bytes, and the one that does not fit any more
select id, body
from (
  select id, body, sum(octet_length(body)) over (order by id rows between unbounded preceding and 1 preceding) as before
  from (select id, body from payload where id > %(after)s and is_packed(body) order by id limit %(limit)s) p
) bodies
where coalesce(before, 0) < %(bytes)s
order by id;

-- erase_packed_bodies: the same, given with what they hold
select changed from erase_packed_bodies(%(destination)s, %(alias)s, %(ids)s, %(plain)b) as changed;

-- erase_elsewhere: all other tables
select touched from erase_elsewhere(%(destination)s, %(alias)s) as touched;

-- renew_statistics: the planner forgets too
select renew_statistics();

-- finish_erasure: what was found, for the auditor
update erasure set finished_at = now(), messages = %(messages)s, reports = %(reports)s, bodies = %(bodies)s,
  other_rows = %(other_rows)s
where id = %(id)s;

-- count_payloads: an estimate is enough for a progress bar
select sum(greatest(reltuples, 0))::bigint from pg_class join pg_inherits on inhrelid = oid
where inhparent = 'payload'::regclass;
