-- How reports become rows. The ranking rule is written once, in fold_reports().

create function first_known(anyelement, anyelement) returns anyelement
  language sql immutable strict parallel safe as 'select $1';
comment on function first_known(anyelement, anyelement) is 'Transition of the aggregate first_known: keeps what it has.';

do $$ begin
  -- Postgres has the same in C since version 16, and computes status rows three times as fast with it.
  execute format('create aggregate first_known(anyelement) (sfunc = %s, stype = anyelement)',
                 case when current_setting('server_version_num')::int >= 160000 then 'any_value_transfn' else 'first_known' end);
end $$;
comment on aggregate first_known(anyelement) is 'The first value that is not NULL, in the order of the input.';

create function fold_reports(reports delivery_report[]) returns setof message_status
language sql stable
begin atomic
  select provider, first_known(channel), message_id, destination, first_known(batch_id),
         first_known(status), first_known(is_final),
         first_known(status_code), first_known(status_name), first_known(status_description),
         first_known(error_code), first_known(error_name), first_known(error_permanent),
         first_known(sent_at), first_known(done_at), first_known(segments), first_known(mcc_mnc),
         first_known(price), first_known(currency), first_known(sender), first_known(callback_data),
         max(source) filter (where verdict = 1)::text,
         (count(*) filter (where source <> 'sent'))::int,
         coalesce(min(status) filter (where is_final and not of_reused_id)
               <> max(status) filter (where is_final and not of_reused_id), false),
         min(received_at), min(received_at) filter (where verdict = 1), max(received_at)
  from (
    select *, rank() over (  -- reports of one place give the same verdict in other words, as a push and a log do
      partition by provider, message_id, destination
      order by of_reused_id,             -- a report about a later attempt never replaces another
               is_final desc,            -- 1. final beats not final
               done_at desc nulls last,  -- 2. then the later done_at
               status desc               -- 3. then the order of the enum
      ) as verdict
    from unnest(reports)
    order by provider, message_id, destination, verdict,
             -- 4. then the report that says more, then its digest, so that no tie is left
             num_nonnulls(batch_id, status_code, status_name, status_description, error_code, error_name, error_permanent,
                          sent_at, segments, mcc_mnc, price, currency, sender, callback_data) desc,
             digest desc
  ) ranked
  group by provider, message_id, destination
  order by provider, message_id, destination;
end;
comment on function fold_reports(delivery_report[]) is
  'The ranking rule: the status rows that a set of reports gives, in any order of the set. The highest-ranked report of a message decides; a field that it lacks has the value of the next one that has it. source and decided_at are of all reports that give its verdict.';

create function refold(history delivery_report[]) returns int
language plpgsql as $$
declare
  changed int;
begin
  insert into message_status as current
  select * from fold_reports(history)
  on conflict (provider, message_id, destination) do update set
    channel = excluded.channel, batch_id = excluded.batch_id, status = excluded.status, is_final = excluded.is_final,
    status_code = excluded.status_code, status_name = excluded.status_name,
    status_description = excluded.status_description, error_code = excluded.error_code,
    error_name = excluded.error_name, error_permanent = excluded.error_permanent, sent_at = excluded.sent_at,
    done_at = excluded.done_at, segments = excluded.segments, mcc_mnc = excluded.mcc_mnc, price = excluded.price,
    currency = excluded.currency, sender = excluded.sender, callback_data = excluded.callback_data,
    source = excluded.source, report_count = excluded.report_count, has_conflict = excluded.has_conflict,
    first_seen_at = excluded.first_seen_at, decided_at = excluded.decided_at, updated_at = excluded.updated_at
  where current *<> excluded;  -- byte for byte
  get diagnostics changed = row_count;
  return changed;
end $$;
comment on function refold(delivery_report[]) is
  'Computes the status rows of messages again from their whole history; gives the number of rows that changed. The caller held the locks of rows that exist when it read the history.';

create function history_of(keys message_key[], since timestamptz[] default null) returns setof delivery_report
language sql stable as $$  -- as text: it gives all columns that there are when it is used
  select d.*
  from unnest(keys, since) k (provider, message_id, destination, since)
  join delivery_report d
    on history_place(d.message_id, d.destination) = history_place(k.message_id, k.destination)
    and (d.provider, d.message_id, d.destination) = (k.provider, k.message_id, k.destination)
  where d.received_at >= coalesce(k.since, '-infinity');
$$;
comment on function history_of(message_key[], timestamptz[]) is 'The reports of messages; where times are given, one for each message, those that were received from then on.';

-- What a report is in the call: the history's columns without those that its body gives.
create type incoming_report as (
  arrival int, item int, provider text, message_id text, destination text, digest bytea, status delivery_status,
  is_final boolean, of_reused_id boolean, channel text, batch_id text, status_code text, status_name text,
  status_description text, error_code text, error_name text, error_permanent boolean, sent_at timestamptz,
  done_at timestamptz, times_assumed_utc boolean, segments int, mcc_mnc text, price numeric, currency text,
  sender text, callback_data text);
comment on type incoming_report is 'A report as record() takes it; arrival is the position of its body in the call, from 1.';

-- As volatile functions they see what was committed while their caller waited for the lock of the batch.
create function batch_is_named(batch_provider text, id text, batch_destinations text[]) returns boolean
language sql volatile
begin atomic
  select exists (select from message_status m where (m.provider, m.batch_id) = (batch_provider, id))
     and not exists (select unnest(batch_destinations) except
                     select m.destination from message_status m where (m.provider, m.batch_id) = (batch_provider, id));
end;
comment on function batch_is_named(text, text, text[]) is 'Whether messages of a batch are known, and one for each of these destinations.';

create function batch_is_open(batch_provider text, id text) returns boolean
language sql volatile
begin atomic
  -- Each status is looked up in message_status_batch, which has them before is_final: a batch may have many messages.
  -- `not is_final` in these words would allow the index of all that is open as well (message_status_open).
  select exists (select from message_status m
                 where (m.provider, m.batch_id) = (batch_provider, id) and m.is_final < true
                   and m.status = any (enum_range(null::delivery_status)));
end;
comment on function batch_is_open(text, text) is 'Whether a message of a batch is not final.';

create function record(arrivals json, bodies bytea[], reports json, rejects json, batches json)
returns table (arrival int, payload_id bigint, fresh int, changed int)
language plpgsql
-- A cached plan must reach history and status by their indexes, however small the tables were when it was made.
set jit = off set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
-- It leaves out partitions when it is executed. Plans made for each value cost more than they save.
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  payload_ids bigint[];        -- by arrival
  received timestamptz[];      -- by arrival
  sources report_source[];     -- by arrival
  stored_before boolean;
  incoming delivery_report[];
  again delivery_report[];      -- of these, what is there already
  more delivery_report[];       -- and what is new about known messages
  history delivery_report[];    -- of the known messages
  known message_key[];
  frozen message_key[];
  others message_key[];
  firsts timestamptz[];         -- by known message: nothing of its history was received before
  since timestamptz;            -- the first of them; later that of these and of what came again
  is_better boolean;
begin
  -- Whom we were asked to forget does not come back (0005_privacy.sql).
  if exists (select from erasure) then
    if must_be_opened(bodies) then
      return;
    end if;
    select * into arrivals, bodies, reports, rejects, batches from without_forgotten(arrivals, bodies, reports, rejects, batches);
  end if;

  -- A body that is not stored yet gets its id here, so that everything below can refer to it.
  with came as materialized (
    select arrival, coalesce(payload_id, nextval('payload_id_seq')) as id, payload_id is not null as is_stored,
           coalesce(received_at, now()) as received_at, provider, source, kind, channel, content_type, error
    from json_to_recordset(arrivals) as a (
      arrival int, payload_id bigint, received_at timestamptz, provider text, source report_source, kind text,
      channel text, content_type text, error text)
  ), stored as (
    insert into payload (id, received_at, provider, source, kind, channel, content_type, body, error)
    select id, received_at, provider, source, kind, channel, content_type, bodies[arrival], error
    from came where not is_stored
  )
  select array_agg(id order by arrival), array_agg(received_at order by arrival), array_agg(source order by arrival),
         bool_or(is_stored)
  into payload_ids, received, sources, stored_before
  from came;

  if stored_before then
    with read as (
      update payload p set kind = a.kind, error = a.error
      from json_to_recordset(arrivals) as a (arrival int, payload_id bigint, kind text, error text)
      where p.id = a.payload_id
      returning a.arrival, p.received_at
    )
    select array_agg(coalesce(read.received_at, received[n]) order by n) into received
    from generate_subscripts(received, 1) n left join read on read.arrival = n;

    -- Whatever was refused before and is understood now leaves the quarantine.
    delete from quarantine q
    using json_to_recordset(arrivals) as a (payload_id bigint)
    where q.payload_id = a.payload_id;
  end if;

  if json_array_length(rejects) > 0 then
    insert into quarantine (payload_id, item, provider, received_at, reason, content)
    select payload_ids[r.arrival], r.item, r.provider, received[r.arrival], r.reason, r.content
    from json_to_recordset(rejects) as r (arrival int, item int, provider text, reason text, content text)
    on conflict do nothing;
  end if;

  -- The same report may come twice in one call: one of it is kept, with the best that is known of how it came.
  select array_agg(row(
      first_received, sent_at, done_at, payload_ids[arrival], item, segments, best_source, status, is_final, of_reused_id,
      error_permanent, times_assumed_utc, provider, message_id, destination, best_channel, batch_id, status_code,
      status_name, status_description, error_code, error_name, mcc_mnc, price, currency, sender, callback_data,
      digest)::delivery_report)
  into incoming
  from (
    select *, row_number() over (same order by received[arrival], arrival, item) as copy,
           max(channel) over same as best_channel, max(sources[arrival]) over same as best_source,
           min(received[arrival]) over same as first_received
    from json_populate_recordset(null::incoming_report, reports)
    window same as (partition by digest)
  ) copies
  where copy = 1;

  if json_array_length(batches) > 0 then
    -- Several bodies may speak of one batch: the first makes it known, of what they tell the last is right.
    select json_agg(b) into batches
    from (
      select provider, batch_id, first_known(source order by n) as source,
             first_known(nullif(destinations, '{}') order by n desc) as destinations,
             first_known(total order by n desc) as total, first_known(delivered order by n desc) as delivered,
             first_known(failed order by n desc) as failed,
             bool_or(source in ('push', 'sent')) as is_news,
             (provider, batch_id) in (select r.provider, r.batch_id from unnest(incoming) r where not r.is_final) as is_open
      from rows from (json_to_recordset(batches) as (
        provider text, batch_id text, source text, destinations text[], total int, delivered int, failed int))
        with ordinality as told (provider, batch_id, source, destinations, total, delivered, failed, n)
      group by provider, batch_id
    ) b;

    -- A push names a batch because it holds a report of it.
    insert into sent_batch (provider, batch_id, source, is_named)
    select b.provider, b.batch_id, b.source, b.source = 'push'
    from json_to_recordset(batches) as b (provider text, batch_id text, source text)
    order by b.provider, b.batch_id
    on conflict do nothing;

    -- Locked in the order of their keys, as status rows are below. A report that is not final locks its batch in any
    -- case: whoever finds just now that all of it is final (schedule_batches) comes before, or sees the report.
    perform from sent_batch s
    join json_to_recordset(batches) as b (
      provider text, batch_id text, destinations text[], total int, is_news boolean, is_open boolean)
      using (provider, batch_id)
    where b.total is not null or b.destinations is not null
      or b.is_news and (b.is_open or s.next_pull_at is null and (not s.is_named or batch_is_open(s.provider, s.batch_id)))
    order by s.provider, s.batch_id
    for update of s;

    if found then
      -- What our own questions bring does not reopen a batch: they would never end.
      update sent_batch s set
        total = coalesce(b.total, s.total), delivered = coalesce(b.delivered, s.delivered),
        failed = coalesce(b.failed, s.failed), destinations = coalesce(b.destinations, s.destinations),
        is_named = b.is_named,
        next_pull_at = case when b.is_reopened then now() else s.next_pull_at end,
        reopened_at = case when b.is_reopened then now() else s.reopened_at end
      from (
        select b.*, named.is_named,
               s.next_pull_at is null and b.is_news
                 and (b.is_open or not named.is_named or batch_is_open(s.provider, s.batch_id)) as is_reopened
        from sent_batch s
        join json_to_recordset(batches) as b (
          provider text, batch_id text, destinations text[], total int, delivered int, failed int, is_news boolean,
          is_open boolean)
          using (provider, batch_id)
        cross join lateral (select s.is_named and coalesce(b.destinations <@ s.destinations, true)) named (is_named)
      ) b
      where (s.provider, s.batch_id) = (b.provider, b.batch_id)
        and (b.total is not null or b.destinations is not null or b.is_reopened);
    end if;
  end if;

  -- Status rows are locked first, in the order of their keys, here and everywhere: no two calls can deadlock, and
  -- whoever comes second to a message reads the history of the first, because each statement has a new snapshot.
  with folded as materialized (
    select * from fold_reports(incoming)
  ), inserted as (
    insert into message_status select * from folded
    on conflict do nothing
    returning provider, message_id, destination
  )
  select array_agg(row(provider, message_id, destination)::message_key) into known
  from (
    select provider, message_id, destination from folded
    except select provider, message_id, destination from inserted
  ) not_inserted;

  -- A message whose row was inserted here has no history.
  if known is not null then
    lock table only delivery_report in row exclusive mode;  -- from here on no history is dropped

    -- A message whose history was dropped, or a part of it, is frozen: one late report cannot stand for all that is gone.
    -- A row that is away, as it was just moved (0005_privacy.sql), is made again from the whole history.
    select array_agg(key) filter (where is_frozen), array_agg(key) filter (where not is_frozen),
           array_agg(first_seen_at) filter (where not is_frozen),
           case when count(*) = cardinality(known) then min(first_seen_at) filter (where not is_frozen)
                else '-infinity' end
    into frozen, others, firsts, since
    from (
      select row(provider, message_id, destination)::message_key as key, first_seen_at,
             (first_seen_at < (select k.since from kept_history k)) is true as is_frozen
      from message_status join unnest(known) using (provider, message_id, destination)
      order by provider, message_id, destination
      for update of message_status
    ) locked;
    if frozen is not null then
      select array_agg(report) into incoming
      from unnest(incoming) report
      where row(report.provider, report.message_id, report.destination)::message_key <> all(frozen);
    end if;
    if since = '-infinity' then
      known := array(select unnest(known) except select unnest(frozen));
      firsts := array_fill(since, array[cardinality(known)]);
    else
      known := others;
    end if;
  end if;

  if known is not null then
    -- Read once: the locks keep it as it is. `not in` looks up hashes, where a join would compare each with each.
    history := array(select d from history_of(known, firsts) d);
    select array_agg(report) filter (where is_fresh), array_agg(report) filter (where not is_fresh),
           array_agg(report) filter (where is_fresh and not of_new)
    into incoming, again, more
    from (
      select report, report.digest not in (select h.digest from unnest(history) h) as is_fresh,
             (report.provider, report.message_id, report.destination)
               not in (select provider, message_id, destination from unnest(known)) as of_new
      from unnest(incoming) report
    ) compared;
    if again is not null then
      -- Of what is there already, only the best is kept that is known of how it came.
      update delivery_report d set
        received_at = least(d.received_at, report.received_at), source = greatest(d.source, report.source),
        channel = greatest(d.channel, report.channel)
      from unnest(again) report
      where history_place(d.message_id, d.destination) = history_place(report.message_id, report.destination)
        and (d.provider, d.message_id, d.destination, d.digest)
          = (report.provider, report.message_id, report.destination, report.digest)
        and d.received_at >= since
        and (d.received_at, d.source, d.channel) is distinct from
            (least(d.received_at, report.received_at), greatest(d.source, report.source), greatest(d.channel, report.channel));
      is_better := found;
      if is_better then
        since := least(since, (select min(received_at) from unnest(again)));
        history := array(select d from history_of(known, array_fill(since, array[cardinality(known)])) d);
      end if;
    end if;
  end if;

  return query
  with recorded as (
    insert into delivery_report select * from unnest(incoming)
    returning payload_id, provider, message_id, destination
  )
  select min(n)::int, payload_id, sum(reports)::int, count(message_id)::int
  from (
    select n, payload_id, 0 as reports, null as message_id from unnest(payload_ids) with ordinality as a (payload_id, n)
    union all
    select null, payload_id, count(*), message_id from recorded group by payload_id, provider, message_id, destination
  ) of_body
  group by payload_id;

  -- What only came again changes nothing; a row that is away is made all the same.
  if more is not null or is_better or since = '-infinity' then
    perform refold(history || more);
  end if;
end $$;
comment on function record(json, bytea[], json, json, json) is
  'Takes any number of bodies and what was read from them, and writes payload, quarantine, sent_batch, delivery_report and message_status. Gives, for each body, its payload id, how many reports were new and how many messages changed. Does nothing and gives nothing where a packed body must be given in plain, because somebody is forgotten: see must_be_opened().';

create function merge_copies(keys message_key[]) returns void
language plpgsql
-- As in record().
set jit = off set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $$
begin
  with twice as materialized (
    select provider, message_id, destination, digest, min(received_at) as received_at, max(source) as source,
           max(channel) as channel
    from history_of(keys)
    group by provider, message_id, destination, digest
    having count(*) > 1
  ), copies as (
    delete from delivery_report d using twice t
    where history_place(d.message_id, d.destination) = history_place(t.message_id, t.destination)
      and (d.provider, d.message_id, d.destination, d.digest) = (t.provider, t.message_id, t.destination, t.digest)
    returning d as report, to_jsonb(t) as best
  )
  insert into delivery_report
  select distinct on (kept.provider, kept.message_id, kept.destination, kept.digest) kept.*
  from (select * from copies order by (report).received_at) ordered
  cross join lateral jsonb_populate_record(report, best - 'digest') as kept;
end $$;
comment on function merge_copies(message_key[]) is
  'Makes one of the reports of messages that are in the history more than once. The caller holds the locks of the messages.';

create function rebuild(after bigint, how_many int, out last bigint, out messages int, out changed int)
language plpgsql
-- A cached plan must reach history and status by their indexes, however small the tables were when it was made.
set jit = off set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
-- It takes what comes next from the indexes of all partitions. Sorting all that is left would seem cheaper to it.
set enable_bitmapscan = off set max_parallel_workers_per_gather = 0
-- It leaves out partitions when it is executed. Plans made for each value cost more than they save.
set plan_cache_mode = force_generic_plan as $$
declare
  keys message_key[];
  lost message_key[];
  history delivery_report[];
begin
  lock table only delivery_report in row exclusive mode;  -- from here on no history is dropped
  select array_agg(distinct key order by key), array_agg(distinct key) filter (where is_lost), max(place)
  into keys, lost, last
  from (
    select row(provider, message_id, destination)::message_key as key, m.status is null as is_lost,
           history_place(d.message_id, d.destination) as place
    from delivery_report d left join message_status m using (provider, message_id, destination)
    where history_place(d.message_id, d.destination) > after
      and (m.first_seen_at < (select k.since from kept_history k)) is not true  -- the others are frozen: see record()
    order by place
    fetch first (how_many) rows with ties
  ) chunk;

  -- A row that was lost is made before the others are locked, as record() does it: without a row to wait for, a push
  -- that comes now would not be seen here, and be overwritten.
  insert into message_status
  select * from fold_reports(array(select d from history_of(lost) d))
  on conflict do nothing;
  get diagnostics changed = row_count;

  perform from message_status join unnest(keys) using (provider, message_id, destination)
  order by provider, message_id, destination
  for update of message_status;
  loop
    history := array(select d from history_of(keys) d);
    exit when (select count(*) = count(distinct row(provider, message_id, destination, digest)) from unnest(history));
    perform merge_copies(keys);  -- while a status row was lost, record() could not know that it had a report already
  end loop;
  messages := coalesce(cardinality(keys), 0);
  changed := changed + refold(history);
end $$;
comment on function rebuild(bigint, int) is
  'Computes the status rows of the next messages after a history_place() again from their history, while pushes go on: those of so many reports, and of all others at the same place as the last. Gives that place.';
