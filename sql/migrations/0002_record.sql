-- How reports become rows. The ranking rule is written once, in fold_reports().

create function first_known(anyelement, anyelement) returns anyelement
  language sql immutable strict parallel safe as 'select $1';
comment on function first_known(anyelement, anyelement) is 'Transition of the aggregate first_known: keeps what it has.';

create aggregate first_known(anyelement) (sfunc = first_known, stype = anyelement);
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
         first_known(source)::text,
         (count(*) filter (where source <> 'sent'))::int,
         coalesce(min(status) filter (where is_final and not of_reused_id)
               <> max(status) filter (where is_final and not of_reused_id), false),
         min(received_at), max(received_at)
  from (
    select * from unnest(reports)
    order by provider, message_id, destination,
             of_reused_id,             -- a report about a later attempt never replaces another
             is_final desc,            -- 1. final beats not final
             done_at desc nulls last,  -- 2. then the later done_at
             status desc,              -- 3. then the order of the enum
             digest desc               -- 4. then a fixed rule on the content, so that no tie is left
  ) ranked
  group by provider, message_id, destination
  order by provider, message_id, destination;
end;
comment on function fold_reports(delivery_report[]) is
  'The ranking rule: the status rows that a set of reports gives, in any order of the set. The highest-ranked report of a message decides; a field that it lacks has the value of the next one that has it.';

create function refold(keys message_key[]) returns int
language plpgsql
-- A cached plan must reach history and status by their keys, however small the tables were when it was made.
set jit = off set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $$
declare
  changed int;
begin
  insert into message_status as current
  select * from fold_reports(array(
    select d from delivery_report d join unnest(keys) using (provider, message_id, destination)))
  on conflict (provider, message_id, destination) do update set
    channel = excluded.channel, batch_id = excluded.batch_id, status = excluded.status, is_final = excluded.is_final,
    status_code = excluded.status_code, status_name = excluded.status_name,
    status_description = excluded.status_description, error_code = excluded.error_code,
    error_name = excluded.error_name, error_permanent = excluded.error_permanent, sent_at = excluded.sent_at,
    done_at = excluded.done_at, segments = excluded.segments, mcc_mnc = excluded.mcc_mnc, price = excluded.price,
    currency = excluded.currency, sender = excluded.sender, callback_data = excluded.callback_data,
    source = excluded.source, report_count = excluded.report_count, has_conflict = excluded.has_conflict,
    first_seen_at = excluded.first_seen_at, updated_at = excluded.updated_at
  where current *<> excluded;  -- byte for byte
  get diagnostics changed = row_count;
  return changed;
end $$;
comment on function refold(message_key[]) is
  'Computes the status rows of messages again from their history; gives the number of rows that changed. The caller holds the locks of rows that exist.';

-- What a report is in the call: the history's columns without those that its body gives.
create type incoming_report as (
  arrival int, item int, provider text, message_id text, destination text, digest bytea, status delivery_status,
  is_final boolean, of_reused_id boolean, channel text, batch_id text, status_code text, status_name text,
  status_description text, error_code text, error_name text, error_permanent boolean, sent_at timestamptz,
  done_at timestamptz, times_assumed_utc boolean, segments int, mcc_mnc text, price numeric, currency text,
  sender text, callback_data text);
comment on type incoming_report is 'A report as record() takes it; arrival is the position of its body in the call, from 1.';

create function record(arrivals json, bodies bytea[], reports json, rejects json, batches json)
returns table (arrival int, payload_id bigint, fresh int, changed int)
language plpgsql
-- A cached plan must reach history and status by their keys, however small the tables were when it was made.
set jit = off set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $$
#variable_conflict use_column
declare
  payload_ids bigint[];        -- by arrival
  received timestamptz[];      -- by arrival
  sources report_source[];     -- by arrival
  stored_before boolean;
  incoming delivery_report[];
  inserted message_key[];
  known message_key[];
  frozen message_key[];
begin
  -- Whom we were asked to forget does not come back (0005_privacy.sql).
  if exists (select from erasure) then
    select * into bodies, reports, rejects, batches from without_forgotten(bodies, reports, rejects, batches);
  end if;

  -- A body that is not stored yet gets its id here, so that everything below can refer to it.
  select array_agg(coalesce(p.id, nextval('payload_id_seq')) order by a.arrival),
         array_agg(coalesce(p.received_at, a.received_at, now()) order by a.arrival),
         array_agg(a.source order by a.arrival),
         bool_or(p.id is not null)
  into payload_ids, received, sources, stored_before
  from json_to_recordset(arrivals) as a (arrival int, payload_id bigint, received_at timestamptz, source report_source)
  left join payload p on p.id = a.payload_id;

  insert into payload (id, received_at, provider, source, kind, channel, content_type, body, error)
  select payload_ids[a.arrival], received[a.arrival], a.provider, a.source, a.kind, a.channel, a.content_type,
         bodies[a.arrival], a.error
  from json_to_recordset(arrivals) as a (
    arrival int, payload_id bigint, provider text, source report_source, kind text, channel text, content_type text,
    error text)
  where a.payload_id is null;

  if stored_before then
    update payload p set kind = a.kind, error = a.error
    from json_to_recordset(arrivals) as a (payload_id bigint, kind text, error text)
    where p.id = a.payload_id;

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

  if json_array_length(batches) > 0 then
    -- Several bodies may speak of one batch: the first makes it known, of what they tell the last is right.
    select json_agg(b) into batches
    from (
      select provider, batch_id, first_known(source order by n) as source,
             first_known(nullif(destinations, '{}') order by n desc) as destinations,
             first_known(total order by n desc) as total, first_known(delivered order by n desc) as delivered,
             first_known(failed order by n desc) as failed
      from rows from (json_to_recordset(batches) as (
        provider text, batch_id text, source text, destinations text[], total int, delivered int, failed int))
        with ordinality as told (provider, batch_id, source, destinations, total, delivered, failed, n)
      group by provider, batch_id
    ) b;

    insert into sent_batch (provider, batch_id, source)
    select b.provider, b.batch_id, b.source
    from json_to_recordset(batches) as b (provider text, batch_id text, source text)
    order by b.provider, b.batch_id
    on conflict do nothing;

    -- Locked in the order of their keys, as status rows are below.
    update sent_batch s set
      total = coalesce(b.total, s.total), delivered = coalesce(b.delivered, s.delivered),
      failed = coalesce(b.failed, s.failed), destinations = coalesce(b.destinations, s.destinations)
    from (
      select b.*
      from sent_batch
      join json_to_recordset(batches) as b (
        provider text, batch_id text, destinations text[], total int, delivered int, failed int)
        using (provider, batch_id)
      where b.total is not null or b.destinations is not null
      order by provider, batch_id
      for update of sent_batch
    ) b
    where (s.provider, s.batch_id) = (b.provider, b.batch_id);
  end if;

  -- The same report may come twice in one call: one of it is kept, with the best that is known of how it came.
  -- 0.1 and 0.10 are one price and one report, so they are kept in one spelling.
  select array_agg(row(
      nextval('delivery_report_id_seq'), provider, message_id, destination, digest, status, is_final, of_reused_id,
      best_channel, batch_id, status_code, status_name, status_description, error_code, error_name, error_permanent,
      sent_at, done_at, times_assumed_utc, segments, mcc_mnc, trim_scale(price), currency, sender, callback_data,
      best_source, first_received, payload_ids[arrival], item)::delivery_report)
  into incoming
  from (
    select *, row_number() over (same order by received[arrival], arrival, item) as copy,
           max(channel) over same as best_channel, max(sources[arrival]) over same as best_source,
           min(received[arrival]) over same as first_received
    from json_populate_recordset(null::incoming_report, reports)
    window same as (partition by provider, message_id, destination, digest)
  ) copies
  where copy = 1;

  -- Status rows are locked first, in the order of their keys, here and everywhere: no two calls can deadlock, and
  -- whoever comes second to a message reads the history of the first, because each statement has a new snapshot.
  with fresh as (
    insert into message_status
    select * from fold_reports(incoming)
    on conflict do nothing
    returning provider, message_id, destination
  )
  select array_agg(row(provider, message_id, destination)::message_key) into inserted from fresh;

  select array_agg(key) into known
  from (
    select row(provider, message_id, destination)::message_key as key from unnest(incoming)
    except select unnest(inserted)
  ) not_inserted;

  if known is not null then
    perform from message_status join unnest(known) using (provider, message_id, destination)
    order by provider, message_id, destination
    for update of message_status;

    -- A message whose history was pruned is frozen: one late report cannot stand for all that is gone.
    select array_agg(row(provider, message_id, destination)::message_key) into frozen
    from unnest(known) k
    where not exists (
      select from delivery_report d
      where (d.provider, d.message_id, d.destination) = (k.provider, k.message_id, k.destination));
    if frozen is not null then
      select array_agg(report) into incoming
      from unnest(incoming) report
      where row(report.provider, report.message_id, report.destination)::message_key <> all(frozen);
    end if;
  end if;

  return query
  with recorded as (
    insert into delivery_report as known
    select * from unnest(incoming)
    on conflict (provider, message_id, destination, digest) do update set
      received_at = least(known.received_at, excluded.received_at),
      source = greatest(known.source, excluded.source),
      channel = greatest(known.channel, excluded.channel)
    where (known.received_at, known.source, known.channel) is distinct from
          (least(known.received_at, excluded.received_at), greatest(known.source, excluded.source),
           greatest(known.channel, excluded.channel))
    returning payload_id, provider, message_id, destination, xmax = 0 as is_new
  )
  select a.arrival::int, a.payload_id, count(r.payload_id)::int,
         (count(distinct row(r.provider, r.message_id, r.destination)) filter (where r.is_new))::int
  from unnest(payload_ids) with ordinality as a (payload_id, arrival)
  left join recorded r on r.payload_id = a.payload_id and r.is_new
  group by a.arrival, a.payload_id;

  if known is not null then
    perform refold(known);
  end if;
end $$;
comment on function record(json, bytea[], json, json, json) is
  'Takes any number of bodies and what was read from them, and writes payload, quarantine, sent_batch, delivery_report and message_status. Gives, for each body, its payload id, how many reports were new and how many messages changed.';

create function rebuild(after message_key, how_many int, out last message_key, out messages int, out changed int)
language plpgsql
-- A cached plan must reach history and status by their keys, however small the tables were when it was made.
set jit = off set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $$
declare
  keys message_key[];
begin
  select array_agg(row(provider, message_id, destination)::message_key order by provider, message_id, destination)
  into keys
  from (
    select distinct provider, message_id, destination from delivery_report
    where (provider, message_id, destination) > ((after).provider, (after).message_id, (after).destination)
    order by provider, message_id, destination
    limit how_many
  ) chunk;

  -- A row that was lost is made before the others are locked, as record() does it: without a row to wait for, a push
  -- that comes now would not be seen here, and be overwritten.
  insert into message_status
  select * from fold_reports(array(
    select d from delivery_report d join unnest(keys) using (provider, message_id, destination)
    where not exists (
      select from message_status m
      where (m.provider, m.message_id, m.destination) = (d.provider, d.message_id, d.destination))))
  on conflict do nothing;
  get diagnostics changed = row_count;

  perform from message_status join unnest(keys) using (provider, message_id, destination)
  order by provider, message_id, destination
  for update of message_status;
  last := keys[cardinality(keys)];
  messages := coalesce(cardinality(keys), 0);
  changed := changed + refold(keys);
end $$;
comment on function rebuild(message_key, int) is
  'Computes the status rows of the next messages after a key again from their history, while pushes go on.';
