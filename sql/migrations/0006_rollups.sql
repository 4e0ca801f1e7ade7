-- Counts by quarter of an hour, so that views need not read messages. They are exact at any moment:
--   1. triggers on message_status write what a statement changed into rollup_delta, a row for each message that came or
--      went. They only insert, so no push waits for another;
--   2. fold_rollups(), called by the reconciler, moves these rows into the rollups;
--   3. views add up both.
-- A quarter of an hour, because every time zone's days begin at one. Everything is computed from message_status alone, so
-- a message that is late, changed, moved to another day, forgotten or computed again is taken out as it was and put in
-- as it is.

create function quarter_of(moment timestamptz) returns timestamptz
language sql immutable parallel safe
return date_bin('15 minutes', moment, '2000-01-01T00:00Z');
comment on function quarter_of(timestamptz) is 'Start of the quarter of an hour, in UTC.';

create function whole_seconds(span interval) returns int
language sql immutable parallel safe
return case when span is not null then least(greatest(floor(date_part('epoch', span)), -2147483648), 2147483647)::int end;
comment on function whole_seconds(interval) is 'Seconds, rounded down; 68 years at most, so that no report is refused for its clock.';

create table rollup_delta (
  n int not null,
  bucket timestamptz not null,
  provider text not null,
  channel text,
  mcc_mnc text,
  currency text,
  status delivery_status not null,
  is_final boolean not null,
  status_code text,
  error_code text,
  error_permanent boolean,
  source text not null,
  report_count int not null,
  price numeric,
  segments int,
  latency int,
  lag int
-- Rows live for a minute: clean up by their number, not by a share of the table.
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
comment on table rollup_delta is 'Changes of message_status that the rollups do not hold yet. Written by triggers, emptied by fold_rollups().';
comment on column rollup_delta.n is '1: a message is now so. -1: it was so before.';
comment on column rollup_delta.bucket is 'Quarter of an hour of sent_at, else of first_seen_at.';
comment on column rollup_delta.provider is 'As in message_status.';
comment on column rollup_delta.channel is 'As in message_status.';
comment on column rollup_delta.mcc_mnc is 'As in message_status.';
comment on column rollup_delta.currency is 'As in message_status.';
comment on column rollup_delta.status is 'As in message_status.';
comment on column rollup_delta.is_final is 'As in message_status.';
comment on column rollup_delta.status_code is 'As in message_status.';
comment on column rollup_delta.error_code is 'As in message_status.';
comment on column rollup_delta.error_permanent is 'As in message_status.';
comment on column rollup_delta.source is 'As in message_status.';
comment on column rollup_delta.report_count is 'As in message_status.';
comment on column rollup_delta.price is 'As in message_status.';
comment on column rollup_delta.segments is 'As in message_status.';
comment on column rollup_delta.latency is 'done_at - sent_at of a delivered message, in whole seconds.';
comment on column rollup_delta.lag is 'decided_at - done_at of a finished message, in whole seconds.';

create table rollup_network (
  bucket timestamptz not null,
  provider text not null,
  channel text,
  mcc_mnc text,
  currency text,
  messages int not null,
  delivered int not null,
  undeliverable int not null,
  expired int not null,
  rejected int not null,
  sent int not null,
  pending int not null,
  open int not null,
  priced int not null,
  parted int not null,
  part_priced int not null,
  segments bigint not null,
  cost numeric not null,
  cost_by_segment numeric not null,
  latency int[] not null,
  latency_messages int[] not null,
  unique nulls not distinct (bucket, provider, channel, mcc_mnc, currency)
);
comment on table rollup_network is 'Messages by quarter of an hour, network and currency. Trap: without what rollup_delta still holds; ask the views.';
comment on column rollup_network.bucket is 'Quarter of an hour of sent_at, else of first_seen_at.';
comment on column rollup_network.provider is 'As in message_status.';
comment on column rollup_network.channel is 'As in message_status.';
comment on column rollup_network.mcc_mnc is 'As in message_status.';
comment on column rollup_network.currency is 'As in message_status.';
comment on column rollup_network.messages is 'Messages.';
comment on column rollup_network.delivered is 'Of these, of that status.';
comment on column rollup_network.undeliverable is 'Of these, of that status.';
comment on column rollup_network.expired is 'Of these, of that status.';
comment on column rollup_network.rejected is 'Of these, of that status.';
comment on column rollup_network.sent is 'Of these, of that status.';
comment on column rollup_network.pending is 'Of these, of that status.';
comment on column rollup_network.open is 'Of these, not final.';
comment on column rollup_network.priced is 'Of these, with a price.';
comment on column rollup_network.parted is 'Of these, with a number of segments.';
comment on column rollup_network.part_priced is 'Of these, with both.';
comment on column rollup_network.segments is 'Sum of segments.';
comment on column rollup_network.cost is 'Sum of price.';
comment on column rollup_network.cost_by_segment is 'Sum of price * segments.';
comment on column rollup_network.latency is 'The different done_at - sent_at of delivered messages, in whole seconds.';
comment on column rollup_network.latency_messages is 'How many messages have each of them.';

create table rollup_failure (
  bucket timestamptz not null,
  provider text not null,
  channel text,
  status delivery_status not null,
  is_final boolean not null,
  status_code text,
  error_code text,
  error_permanent boolean,
  messages int not null,
  unique nulls not distinct (bucket, provider, channel, status, is_final, status_code, error_code, error_permanent)
);
comment on table rollup_failure is 'Messages that were not delivered, by quarter of an hour and reason. Trap: without what rollup_delta still holds; ask the views.';
comment on column rollup_failure.bucket is 'Quarter of an hour of sent_at, else of first_seen_at.';
comment on column rollup_failure.provider is 'As in message_status.';
comment on column rollup_failure.channel is 'As in message_status.';
comment on column rollup_failure.status is 'undeliverable, expired or rejected.';
comment on column rollup_failure.is_final is 'As in message_status.';
comment on column rollup_failure.status_code is 'As in message_status.';
comment on column rollup_failure.error_code is 'As in message_status.';
comment on column rollup_failure.error_permanent is 'As in message_status.';
comment on column rollup_failure.messages is 'Messages.';

create table rollup_source (
  bucket timestamptz not null,
  provider text not null,
  channel text,
  source text not null,
  messages int not null,
  final_messages int not null,
  reports bigint not null,
  lag int[] not null,
  lag_messages int[] not null,
  unique nulls not distinct (bucket, provider, channel, source)
);
comment on table rollup_source is 'Messages by quarter of an hour and way in which their report came. Trap: without what rollup_delta still holds; ask the views.';
comment on column rollup_source.bucket is 'Quarter of an hour of sent_at, else of first_seen_at.';
comment on column rollup_source.provider is 'As in message_status.';
comment on column rollup_source.channel is 'As in message_status.';
comment on column rollup_source.source is 'As in message_status.';
comment on column rollup_source.messages is 'Messages.';
comment on column rollup_source.final_messages is 'Of these, final.';
comment on column rollup_source.reports is 'Their distinct reports.';
comment on column rollup_source.lag is 'The different decided_at - done_at of finished messages, in whole seconds.';
comment on column rollup_source.lag_messages is 'How many messages have each of them.';

-- Into rollup_delta ------------------------------------------------------------------------------------------------

create function count_messages() returns trigger
language plpgsql as $$
begin
  insert into rollup_delta
  select tg_argv[0]::int, quarter_of(coalesce(sent_at, first_seen_at)), provider, channel, mcc_mnc, currency, status,
         is_final, status_code, error_code, error_permanent, source, report_count, price, segments,
         case when status = 'delivered' then whole_seconds(done_at - sent_at) end,
         case when is_final then whole_seconds(decided_at - done_at) end
  from changed;
  return null;
end $$;
comment on function count_messages() is 'Writes the rows of a statement into rollup_delta: as they are now (1), or as they were (-1).';

create trigger count_inserted after insert on message_status
  referencing new table as changed for each statement execute function count_messages('1');
create trigger count_updated_from after update on message_status
  referencing old table as changed for each statement execute function count_messages('-1');
create trigger count_updated_to after update on message_status
  referencing new table as changed for each statement execute function count_messages('1');
create trigger count_deleted after delete on message_status
  referencing old table as changed for each statement execute function count_messages('-1');

create function empty_rollups() returns trigger
language plpgsql as $$
begin
  truncate rollup_delta, rollup_network, rollup_failure, rollup_source;
  return null;
end $$;
comment on function empty_rollups() is 'No messages, no counts.';
create trigger empty_rollups after truncate on message_status for each statement execute function empty_rollups();

-- From rollup_delta into the rollups -------------------------------------------------------------------------------

create view message_change as
select true as is_pending, ctid as place, n, bucket, provider, channel, mcc_mnc, currency, status, is_final, status_code,
       error_code, error_permanent, source, report_count, price, segments, latency, lag
from rollup_delta
union all
select false, null, 1, quarter_of(coalesce(sent_at, first_seen_at)), provider, channel, mcc_mnc, currency, status,
       is_final, status_code, error_code, error_permanent, source, report_count, price, segments,
       case when status = 'delivered' then whole_seconds(done_at - sent_at) end,
       case when is_final then whole_seconds(decided_at - done_at) end
from message_status;
comment on view message_change is 'What rollups are made of. Internal: ask for is_pending, or for not is_pending, never for both.';
comment on column message_change.is_pending is 'true: the rows of rollup_delta. false: all messages, to make the rollups again.';
comment on column message_change.place is 'The row of rollup_delta.';
comment on column message_change.n is '1: a message is so; -1: it was so before.';
comment on column message_change.bucket is 'Quarter of an hour of sent_at, else of first_seen_at.';
comment on column message_change.provider is 'As in message_status.';
comment on column message_change.channel is 'As in message_status.';
comment on column message_change.mcc_mnc is 'As in message_status.';
comment on column message_change.currency is 'As in message_status.';
comment on column message_change.status is 'As in message_status.';
comment on column message_change.is_final is 'As in message_status.';
comment on column message_change.status_code is 'As in message_status.';
comment on column message_change.error_code is 'As in message_status.';
comment on column message_change.error_permanent is 'As in message_status.';
comment on column message_change.source is 'As in message_status.';
comment on column message_change.report_count is 'As in message_status.';
comment on column message_change.price is 'As in message_status.';
comment on column message_change.segments is 'As in message_status.';
comment on column message_change.latency is 'done_at - sent_at of a delivered message, in whole seconds.';
comment on column message_change.lag is 'decided_at - done_at of a finished message, in whole seconds.';

create view network_change as
select is_pending, place, bucket, provider, channel, mcc_mnc, currency, latency, n as messages,
       case status when 'delivered' then n else 0 end as delivered,
       case status when 'undeliverable' then n else 0 end as undeliverable,
       case status when 'expired' then n else 0 end as expired,
       case status when 'rejected' then n else 0 end as rejected,
       case status when 'sent' then n else 0 end as sent,
       case status when 'pending' then n else 0 end as pending,
       case when is_final then 0 else n end as open,
       case when price is null then 0 else n end as priced,
       case when segments is null then 0 else n end as parted,
       case when price is null or segments is null then 0 else n end as part_priced,
       coalesce(n * segments::bigint, 0) as segments, coalesce(n * price, 0) as cost,
       coalesce(n * price * segments, 0) as cost_by_segment
from message_change;
comment on view network_change is 'What rollup_network is made of. Internal, see message_change.';
comment on column network_change.is_pending is 'As in message_change.';
comment on column network_change.place is 'As in message_change.';
comment on column network_change.bucket is 'As in rollup_network.';
comment on column network_change.provider is 'As in rollup_network.';
comment on column network_change.channel is 'As in rollup_network.';
comment on column network_change.mcc_mnc is 'As in rollup_network.';
comment on column network_change.currency is 'As in rollup_network.';
comment on column network_change.latency is 'As in message_change.';
comment on column network_change.messages is 'As in rollup_network.';
comment on column network_change.delivered is 'As in rollup_network.';
comment on column network_change.undeliverable is 'As in rollup_network.';
comment on column network_change.expired is 'As in rollup_network.';
comment on column network_change.rejected is 'As in rollup_network.';
comment on column network_change.sent is 'As in rollup_network.';
comment on column network_change.pending is 'As in rollup_network.';
comment on column network_change.open is 'As in rollup_network.';
comment on column network_change.priced is 'As in rollup_network.';
comment on column network_change.parted is 'As in rollup_network.';
comment on column network_change.part_priced is 'As in rollup_network.';
comment on column network_change.segments is 'As in rollup_network.';
comment on column network_change.cost is 'As in rollup_network.';
comment on column network_change.cost_by_segment is 'As in rollup_network.';

create function merged(values_1 int[], counts_1 int[], values_2 int[], counts_2 int[], out keys int[], out counts int[])
language sql immutable parallel safe
begin atomic
  select coalesce(array_agg(value order by value), '{}'), coalesce(array_agg(n order by value), '{}')
  from (
    select value, sum(n)::int as n
    from (select value, n from unnest(values_1, counts_1) as one (value, n)
          union all select value, n from unnest(values_2, counts_2) as other (value, n)) both_of_them
    group by value
    having sum(n) <> 0
  ) summed;
end;
comment on function merged(int[], int[], int[], int[]) is 'The sum of two histograms, each given as its values and how often each of them is there.';

create function add_to_rollups(of_delta boolean, places tid[]) returns void
language plpgsql
-- Planned with the values at hand: they decide which half of message_change is read at all.
set plan_cache_mode = force_custom_plan set jit = off as $$
begin
  insert into rollup_network as r
  select bucket, provider, channel, mcc_mnc, currency, sum(messages), sum(delivered), sum(undeliverable), sum(expired),
         sum(rejected), sum(sent), sum(pending), sum(open), sum(priced), sum(parted), sum(part_priced), sum(segments),
         sum(cost), sum(cost_by_segment),
         coalesce(array_agg(latency order by latency) filter (where latency is not null and messages <> 0), '{}'),
         coalesce(array_agg(messages order by latency) filter (where latency is not null and messages <> 0), '{}')
  from (
    select bucket, provider, channel, mcc_mnc, currency, latency, sum(messages) as messages, sum(delivered) as delivered,
           sum(undeliverable) as undeliverable, sum(expired) as expired, sum(rejected) as rejected, sum(sent) as sent,
           sum(pending) as pending, sum(open) as open, sum(priced) as priced, sum(parted) as parted,
           sum(part_priced) as part_priced, sum(segments) as segments, sum(cost) as cost,
           sum(cost_by_segment) as cost_by_segment
    from network_change
    where is_pending = of_delta and (not of_delta or place = any(places))
    group by bucket, provider, channel, mcc_mnc, currency, latency
  ) c
  group by bucket, provider, channel, mcc_mnc, currency
  on conflict (bucket, provider, channel, mcc_mnc, currency) do update set
    messages = r.messages + excluded.messages, delivered = r.delivered + excluded.delivered,
    undeliverable = r.undeliverable + excluded.undeliverable, expired = r.expired + excluded.expired,
    rejected = r.rejected + excluded.rejected, sent = r.sent + excluded.sent, pending = r.pending + excluded.pending,
    open = r.open + excluded.open, priced = r.priced + excluded.priced, parted = r.parted + excluded.parted,
    part_priced = r.part_priced + excluded.part_priced, segments = r.segments + excluded.segments,
    cost = r.cost + excluded.cost, cost_by_segment = r.cost_by_segment + excluded.cost_by_segment,
    (latency, latency_messages) = (
      select m.keys, m.counts from merged(r.latency, r.latency_messages, excluded.latency, excluded.latency_messages) m);

  insert into rollup_failure as r
  select bucket, provider, channel, status, is_final, status_code, error_code, error_permanent, sum(n)
  from message_change
  where is_pending = of_delta and (not of_delta or place = any(places))
    and status in ('undeliverable', 'expired', 'rejected')
  group by bucket, provider, channel, status, is_final, status_code, error_code, error_permanent
  on conflict (bucket, provider, channel, status, is_final, status_code, error_code, error_permanent) do update set
    messages = r.messages + excluded.messages;

  insert into rollup_source as r
  select bucket, provider, channel, source, sum(messages), sum(final_messages), sum(reports),
         coalesce(array_agg(lag order by lag) filter (where lag is not null and messages <> 0), '{}'),
         coalesce(array_agg(messages order by lag) filter (where lag is not null and messages <> 0), '{}')
  from (
    select bucket, provider, channel, source, lag, sum(n) as messages,
           sum(case when is_final then n else 0 end) as final_messages, sum(n * report_count) as reports
    from message_change
    where is_pending = of_delta and (not of_delta or place = any(places))
    group by bucket, provider, channel, source, lag
  ) c
  group by bucket, provider, channel, source
  on conflict (bucket, provider, channel, source) do update set
    messages = r.messages + excluded.messages, final_messages = r.final_messages + excluded.final_messages,
    reports = r.reports + excluded.reports,
    (lag, lag_messages) = (
      select m.keys, m.counts from merged(r.lag, r.lag_messages, excluded.lag, excluded.lag_messages) m);
end $$;
comment on function add_to_rollups(boolean, tid[]) is 'Adds rows of rollup_delta to the rollups, or all messages. Internal: see fold_rollups() and rebuild_rollups().';

create function fold_rollups(how_many int) returns int
language plpgsql
set plan_cache_mode = force_custom_plan set jit = off as $$
declare
  places tid[];
  touched timestamptz[];
begin
  -- One at a time, whoever comes second leaves it to the first. Pushes go on: they only insert.
  if not pg_try_advisory_xact_lock(hashtext('fold_rollups')) then
    return 0;
  end if;
  select array_agg(ctid), array_agg(distinct bucket) into places, touched
  from (select ctid, bucket from rollup_delta limit how_many) chunk;
  if places is null then
    return 0;
  end if;
  perform add_to_rollups(true, places);
  delete from rollup_delta where ctid = any(places);

  -- What is nothing any more goes. Nothing in every column: a message that went and one that came make 0 messages too.
  delete from rollup_network
  where bucket = any(touched) and messages = 0 and latency = '{}' and cost = 0 and cost_by_segment = 0
    and (delivered, undeliverable, expired, rejected, sent, pending, open, priced, parted, part_priced, segments)
      = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  delete from rollup_failure where bucket = any(touched) and messages = 0;
  delete from rollup_source
  where bucket = any(touched) and (messages, final_messages, reports) = (0, 0, 0) and lag = '{}';
  return cardinality(places);
end $$;
comment on function fold_rollups(int) is 'Moves so many rows of rollup_delta into the rollups; gives how many it moved. 0: there are none, or another process is at it.';

create function rebuild_rollups() returns void
language plpgsql set jit = off as $$
begin
  if current_setting('transaction_isolation') = 'read committed' then
    raise exception 'the whole must see one moment: begin isolation level repeatable read; select rebuild_rollups(); commit';
  end if;
  perform pg_advisory_xact_lock(hashtext('fold_rollups'));
  -- Whatever is committed while this runs stays in rollup_delta, which is read as of the moment at which messages are.
  delete from rollup_delta;
  delete from rollup_network;
  delete from rollup_failure;
  delete from rollup_source;
  perform add_to_rollups(false, null);
end $$;
comment on function rebuild_rollups() is 'Makes the rollups again from message_status, while pushes go on. Gives the same as they have, unless triggers were off.';
