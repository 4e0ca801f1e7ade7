-- What analysts look at. The day of a message is the day on which it was sent, and where the provider gives no time the
-- day on which we first heard of it: coalesce(sent_at, first_seen_at), in the time zone of the session. The views of
-- messages by day are sums of the rollups (0006_rollups.sql). They walk the days and read each by the key of a rollup,
-- so that `where day = …` and `where day >= …` read these days only, whatever the time zone is.

create table mobile_network (
  mcc_mnc text primary key,
  country_code text,
  country text not null,
  operator text
);
comment on table mobile_network is 'Names of mobile countries and networks (ITU E.212): every country code that is in use, and the larger networks. Filled from sql/codes/mobile_network.csv by every migrate. Trap: not every network is in it; its country is.';
comment on column mobile_network.mcc_mnc is 'Country and network code as message_status has it; three digits alone stand for the whole country.';
comment on column mobile_network.country_code is 'ISO 3166-1 alpha-2 (XK for Kosovo); NULL for international networks. Trap: a country may have several MCC.';
comment on column mobile_network.country is 'Name in English.';
comment on column mobile_network.operator is 'Trade name; NULL for the row of a country. Trap: networks are sold and renamed, numbers are ported.';

-- export, and whoever asks message_status for a time: rows lie about in the order in which they came, so a summary of each
-- stretch of the table is enough, where an index of every row would take 22 bytes a message
create index message_status_day on message_status using brin ((coalesce(sent_at, first_seen_at)) timestamptz_minmax_multi_ops)
  with (pages_per_range = 32, autosummarize = on);
-- failure_reasons: the provider's words for a code that no list has
create index message_status_failure on message_status
  (provider, coalesce(status_code, ''), coalesce(error_code, ''), updated_at desc)
  where status in ('undeliverable', 'expired', 'rejected');
-- status_conflicts: a message in a thousand
create index message_status_conflict on message_status (updated_at) where has_conflict;
-- reconciler_runs: the pulls of an hour; open_gaps: those of the last days that were not about a batch
create index pull_hour on pull (started_at);
create index pull_store on pull (started_at) where batch_id is null;

create function start_of(day date) returns timestamptz
language sql stable parallel safe
return case when (day::timestamptz - interval '1 hour')::date = day then day::timestamptz - interval '1 hour'
            else day::timestamptz end;
comment on function start_of(date) is 'The first moment of a day in the time zone of the session. Where clocks go back from 1 to 0 (Azores, Cuba) midnight comes twice, and a cast to timestamptz gives the second one.';

-- All three: while only a part of the changes is folded, the sums of one may be nothing where those of another are not.
create view rollup_day as
with recursive days (day) as (
  select least((select min(bucket) from rollup_network), (select min(bucket) from rollup_failure),
               (select min(bucket) from rollup_source))::date
  union
  select least((select min(bucket) from rollup_network where bucket >= start_of(days.day + 1)),
               (select min(bucket) from rollup_failure where bucket >= start_of(days.day + 1)),
               (select min(bucket) from rollup_source where bucket >= start_of(days.day + 1)))::date
  from days where days.day is not null
)
select day from days where day is not null;
comment on view rollup_day is 'The days that the rollups have: what the other views walk. Internal.';
comment on column rollup_day.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session (UTC unless set otherwise).';

create view network_daily as
select d.day, r.*
from rollup_day d
cross join lateral (
  select provider, channel, mcc_mnc, currency, sum(messages) as messages, sum(delivered) as delivered,
         sum(undeliverable) as undeliverable, sum(expired) as expired, sum(rejected) as rejected, sum(sent) as sent,
         sum(pending) as pending, sum(open) as open, sum(priced) as priced, sum(parted) as parted,
         sum(part_priced) as part_priced, sum(segments) as segments, sum(cost) as cost,
         sum(cost_by_segment) as cost_by_segment
  from rollup_network
  where bucket >= start_of(d.day) and bucket < start_of(d.day + 1)
  group by provider, channel, mcc_mnc, currency
) r
union all
select bucket::date, provider, channel, mcc_mnc, currency, messages, delivered, undeliverable, expired, rejected, sent,
       pending, open, priced, parted, part_priced, segments, cost, cost_by_segment
from network_change
where is_pending;
comment on view network_daily is 'Rollup and what is not folded yet, by day. Internal: has several rows for the same, which are to be added up.';
comment on column network_daily.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column network_daily.provider is 'As in rollup_network.';
comment on column network_daily.channel is 'As in rollup_network.';
comment on column network_daily.mcc_mnc is 'As in rollup_network.';
comment on column network_daily.currency is 'As in rollup_network.';
comment on column network_daily.messages is 'As in rollup_network.';
comment on column network_daily.delivered is 'As in rollup_network.';
comment on column network_daily.undeliverable is 'As in rollup_network.';
comment on column network_daily.expired is 'As in rollup_network.';
comment on column network_daily.rejected is 'As in rollup_network.';
comment on column network_daily.sent is 'As in rollup_network.';
comment on column network_daily.pending is 'As in rollup_network.';
comment on column network_daily.open is 'As in rollup_network.';
comment on column network_daily.priced is 'As in rollup_network.';
comment on column network_daily.parted is 'As in rollup_network.';
comment on column network_daily.part_priced is 'As in rollup_network.';
comment on column network_daily.segments is 'As in rollup_network.';
comment on column network_daily.cost is 'As in rollup_network.';
comment on column network_daily.cost_by_segment is 'As in rollup_network.';

create view latency_daily as
select d.day, r.*
from rollup_day d
cross join lateral (
  select provider, channel, mcc_mnc, seconds, sum(messages) as messages
  from (
    select provider, channel, mcc_mnc, unnest(latency) as seconds, unnest(latency_messages) as messages
    from rollup_network
    where bucket >= start_of(d.day) and bucket < start_of(d.day + 1)
  ) h
  group by provider, channel, mcc_mnc, seconds
) r
union all
select bucket::date, provider, channel, mcc_mnc, latency, n
from message_change
where is_pending and latency is not null;
comment on view latency_daily is 'How many messages were delivered within how many seconds. Internal: has several rows for the same, which are to be added up.';
comment on column latency_daily.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column latency_daily.provider is 'As in rollup_network.';
comment on column latency_daily.channel is 'As in rollup_network.';
comment on column latency_daily.mcc_mnc is 'As in rollup_network.';
comment on column latency_daily.seconds is 'done_at - sent_at of delivered messages, in whole seconds.';
comment on column latency_daily.messages is 'How many; those that went are negative.';

create view lag_daily as
select d.day, r.*
from rollup_day d
cross join lateral (
  select provider, channel, source, seconds, sum(messages) as messages
  from (
    select provider, channel, source, unnest(lag) as seconds, unnest(lag_messages) as messages
    from rollup_source
    where bucket >= start_of(d.day) and bucket < start_of(d.day + 1)
  ) h
  group by provider, channel, source, seconds
) r
union all
select bucket::date, provider, channel, source, lag, n
from message_change
where is_pending and lag is not null;
comment on view lag_daily is 'How many finished messages we knew of within how many seconds. Internal: has several rows for the same, which are to be added up.';
comment on column lag_daily.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column lag_daily.provider is 'As in rollup_source.';
comment on column lag_daily.channel is 'As in rollup_source.';
comment on column lag_daily.source is 'As in rollup_source.';
comment on column lag_daily.seconds is 'decided_at - done_at of finished messages, in whole seconds.';
comment on column lag_daily.messages is 'How many; those that went are negative.';

create view delivery_daily as
select day, provider, channel, sum(messages)::bigint as messages, sum(delivered)::bigint as delivered,
       sum(undeliverable)::bigint as undeliverable, sum(expired)::bigint as expired, sum(rejected)::bigint as rejected,
       sum(sent)::bigint as sent, sum(pending)::bigint as pending, sum(open)::bigint as open,
       round(sum(delivered) / sum(messages), 4) as delivery_rate
from network_daily
group by day, provider, channel
having sum(messages) <> 0;
comment on view delivery_daily is 'How many messages of a day were delivered, and what became of the others? The six statuses add up to messages.';
comment on column delivery_daily.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session. Trap: Messaging Plus gives no times, so its day is the one on which we first heard of the message.';
comment on column delivery_daily.provider is 'infobip or messaging_plus.';
comment on column delivery_daily.channel is 'sms, facebook, …; NULL where no report says it (Messaging Plus never does).';
comment on column delivery_daily.messages is 'Messages, counted once for each destination, whatever became of them.';
comment on column delivery_daily.delivered is 'On the handset, as the provider says.';
comment on column delivery_daily.undeliverable is 'Not delivered. Trap: those of Messaging Plus may still be delivered while they are open.';
comment on column delivery_daily.expired is 'Not delivered within the validity period.';
comment on column delivery_daily.rejected is 'Refused by the provider or the operator.';
comment on column delivery_daily.sent is 'With the operator, no handset receipt yet. Trap: sent is not delivered, and some operators never send a receipt.';
comment on column delivery_daily.pending is 'Nothing but acceptance so far.';
comment on column delivery_daily.open is 'Messages without a final report, of whatever status: all that are pending or sent, and failures that may still change.';
comment on column delivery_daily.delivery_rate is 'delivered / messages, 0 to 1. Trap: open messages count as not delivered, so the rate of the last days still rises; never average rates, divide sums.';

-- The k-th of n values with k = share * n, rounded up: what percentile_disc() gives.
create view delivery_latency_daily as
with counted as (
  select day, provider, channel, 'messages' as what, null::int as seconds, sum(messages) as messages,
         sum(delivered) as delivered
  from network_daily
  group by day, provider, channel
  union all
  select day, provider, channel, 'latency', seconds, sum(messages), null
  from latency_daily
  group by day, provider, channel, seconds
  union all
  select day, provider, channel, 'lag', seconds, sum(messages), null
  from lag_daily
  group by day, provider, channel, seconds
), ranked as (
  select day, provider, channel, what, seconds, messages, delivered,
         sum(messages) over (partition by day, provider, channel, what order by seconds) as up_to,
         sum(messages) over (partition by day, provider, channel, what) as measured
  from counted
  where messages <> 0
)
select day, provider, channel, sum(delivered)::bigint as delivered,
       coalesce(max(measured) filter (where what = 'latency'), 0)::bigint as measured,
       min(seconds) filter (where what = 'latency' and up_to >= 0.5 * measured) as p50_seconds,
       min(seconds) filter (where what = 'latency' and up_to >= 0.9 * measured) as p90_seconds,
       min(seconds) filter (where what = 'latency' and up_to >= 0.99 * measured) as p99_seconds,
       coalesce(max(measured) filter (where what = 'lag'), 0)::bigint as lag_measured,
       min(seconds) filter (where what = 'lag' and up_to >= 0.5 * measured) as lag_p50_seconds,
       min(seconds) filter (where what = 'lag' and up_to >= 0.9 * measured) as lag_p90_seconds,
       min(seconds) filter (where what = 'lag' and up_to >= 0.99 * measured) as lag_p99_seconds
from ranked
group by day, provider, channel;
comment on view delivery_latency_daily is 'How fast were the messages of a day delivered, and how long after that did we know? A percentile is the value of a real message in whole seconds, rounded down: the smallest that at least so many have or are below (percentile_disc). NULL where nothing is measured.';
comment on column delivery_latency_daily.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column delivery_latency_daily.provider is 'infobip or messaging_plus. Trap: Messaging Plus gives no times, so it has rows without percentiles.';
comment on column delivery_latency_daily.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column delivery_latency_daily.delivered is 'Delivered messages.';
comment on column delivery_latency_daily.measured is 'Of these, with both sent_at and done_at: what the percentiles are of.';
comment on column delivery_latency_daily.p50_seconds is 'done_at - sent_at of delivered messages, in whole seconds (0: less than one): half of them took no longer. Trap: two clocks may give a negative one; percentiles of days cannot be averaged.';
comment on column delivery_latency_daily.p90_seconds is 'The same, nine of ten.';
comment on column delivery_latency_daily.p99_seconds is 'The same, 99 of 100.';
comment on column delivery_latency_daily.lag_measured is 'Messages with a final report and a done_at, delivered or not: what the lag is of.';
comment on column delivery_latency_daily.lag_p50_seconds is 'Our own lag: decided_at - done_at of finished messages, in whole seconds (0: less than one). report_sources has it by way.';
comment on column delivery_latency_daily.lag_p90_seconds is 'The same, nine of ten.';
comment on column delivery_latency_daily.lag_p99_seconds is 'The same, 99 of 100.';

-- Counted again at the end: the flags of reports count as what they mean, so rows that differ in them only are one.
create view failure_reasons as
select day, provider, channel, status, is_final, status_code, status_name, status_meaning, error_code, error_name,
       error_meaning, is_permanent, sum(messages)::bigint as messages
from (
  select m.day, m.provider, m.channel, m.status::text, m.is_final,
         m.status_code, coalesce(s.name, w.status_name) as status_name,
         coalesce(s.description, p.provider_description, p.description, w.status_description) as status_meaning,
         m.error_code, coalesce(e.name, w.error_name) as error_name, e.description as error_meaning,
         case when m.provider = 'infobip' and m.error_code <> '0' then coalesce(m.error_permanent, e.is_permanent)
              when p.class = 'permanent' then true
              when p.class like 'temporary%' then false end as is_permanent,
         m.messages
  from (
    select day, provider, channel, status, is_final, status_code, error_code, error_permanent,
           sum(messages)::bigint as messages
    from (
      select d.day, r.*
      from rollup_day d
      cross join lateral (
        select provider, channel, status, is_final, status_code, error_code, error_permanent, sum(messages) as messages
        from rollup_failure
        where bucket >= start_of(d.day) and bucket < start_of(d.day + 1)
        group by provider, channel, status, is_final, status_code, error_code, error_permanent
      ) r
      union all
      select bucket::date, provider, channel, status, is_final, status_code, error_code, error_permanent, n
      from message_change
      where is_pending and status in ('undeliverable', 'expired', 'rejected')
    ) f
    group by day, provider, channel, status, is_final, status_code, error_code, error_permanent
    having sum(messages) <> 0
  ) m
  -- A code may be in two groups: one row of it, that of the message's own group where there is one.
  left join lateral (
    select c.name, c.description from infobip_status_code c
    where m.provider = 'infobip' and c.status_code = m.status_code
    order by c.group_name = upper(m.status::text) desc, c.group_id limit 1
  ) s on true
  left join lateral (
    select c.name, c.description, c.is_permanent from infobip_error_code c
    where m.provider = 'infobip' and c.error_code = m.error_code
    order by c.group_id limit 1
  ) e on true
  left join messaging_plus_code p on m.provider = 'messaging_plus' and p.code = m.status_code
  left join lateral (
    select f.status_name, f.status_description, f.error_name from message_status f
    where f.status in ('undeliverable', 'expired', 'rejected') and f.provider = m.provider
      and coalesce(f.status_code, '') = coalesce(m.status_code, '')
      and coalesce(f.error_code, '') = coalesce(m.error_code, '')
    order by f.updated_at desc, f.message_id, f.destination limit 1
  ) w on true
) explained
group by day, provider, channel, status, is_final, status_code, status_name, status_meaning, error_code, error_name,
         error_meaning, is_permanent;
comment on view failure_reasons is 'Why were the messages of a day not delivered? Each failed message is counted in one row. Trap: 87 and 4102 are in two groups of Infobip''s lists; 87 has the meaning of the group that the message is in, 4102 the first one.';
comment on column failure_reasons.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column failure_reasons.provider is 'infobip or messaging_plus.';
comment on column failure_reasons.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column failure_reasons.status is 'undeliverable, expired or rejected.';
comment on column failure_reasons.is_final is 'false: the provider still tries, the failure may go away.';
comment on column failure_reasons.status_code is 'Infobip status id; Messaging Plus code as two upper-case hex digits; NULL where the report gives none.';
comment on column failure_reasons.status_name is 'The name in the code list, else as the newest failed message with these codes has it.';
comment on column failure_reasons.status_meaning is 'What the status means: by the code list (Messaging Plus: its live list first), else as the newest failed message with these codes has it.';
comment on column failure_reasons.error_code is 'Infobip error id. Trap: 0 is no error, and comes with real failures where the operator tells no reason.';
comment on column failure_reasons.error_name is 'The name in the code list, else as the newest failed message with these codes has it.';
comment on column failure_reasons.error_meaning is 'What the error means, by the code list.';
comment on column failure_reasons.is_permanent is 'Whether it is useless to try this destination again. Infobip: the flag of the report, else of the list; Messaging Plus: the class of the code. NULL: nobody says.';
comment on column failure_reasons.messages is 'Messages, counted once for each destination.';

create view network_performance as
with counted as (
  select day, provider, channel, mcc_mnc, null::int as seconds, sum(messages) as messages, sum(delivered) as delivered,
         sum(undeliverable + expired + rejected) as failed, sum(open) as open
  from network_daily
  group by day, provider, channel, mcc_mnc
  union all
  select day, provider, channel, mcc_mnc, seconds, sum(messages), null, null, null
  from latency_daily
  group by day, provider, channel, mcc_mnc, seconds
), ranked as (
  select day, provider, channel, mcc_mnc, seconds, messages, delivered, failed, open,
         sum(messages) over (partition by day, provider, channel, mcc_mnc, seconds is null order by seconds) as up_to,
         sum(messages) over (partition by day, provider, channel, mcc_mnc, seconds is null) as measured
  from counted
  where messages <> 0
)
select m.day, m.provider, m.channel, m.mcc_mnc, coalesce(n.country_code, c.country_code) as country_code,
       coalesce(n.country, c.country) as country, n.operator, m.messages, m.delivered, m.failed, m.open,
       round(m.delivered::numeric / m.messages, 4) as delivery_rate, m.measured, m.p50_seconds, m.p90_seconds
from (
  select day, provider, channel, mcc_mnc, (sum(messages) filter (where seconds is null))::bigint as messages,
         sum(delivered)::bigint as delivered, sum(failed)::bigint as failed, sum(open)::bigint as open,
         coalesce(max(measured) filter (where seconds is not null), 0)::bigint as measured,
         min(seconds) filter (where up_to >= 0.5 * measured) as p50_seconds,
         min(seconds) filter (where up_to >= 0.9 * measured) as p90_seconds
  from ranked
  group by day, provider, channel, mcc_mnc
) m
left join mobile_network n on n.mcc_mnc = m.mcc_mnc and length(m.mcc_mnc) > 3
left join mobile_network c on c.mcc_mnc = left(m.mcc_mnc, 3);
comment on view network_performance is 'Which networks deliver, and how fast? One row for each day and network.';
comment on column network_performance.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column network_performance.provider is 'infobip or messaging_plus. Trap: Messaging Plus names no networks.';
comment on column network_performance.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column network_performance.mcc_mnc is 'Mobile country and network code; NULL where no report names the network.';
comment on column network_performance.country_code is 'ISO 3166-1 alpha-2 of the country; NULL where it is unknown.';
comment on column network_performance.country is 'Country of the network. Trap: that of the network, which need not be that of the number.';
comment on column network_performance.operator is 'Trade name; NULL where mobile_network does not know the network.';
comment on column network_performance.messages is 'Messages, counted once for each destination.';
comment on column network_performance.delivered is 'Of these, delivered.';
comment on column network_performance.failed is 'Of these, undeliverable, expired or rejected, final or not.';
comment on column network_performance.open is 'Of these, without a final report, failed or not.';
comment on column network_performance.delivery_rate is 'delivered / messages, 0 to 1. Trap: open messages count as not delivered; a network without handset receipts stays near 0.';
comment on column network_performance.measured is 'Delivered messages with both sent_at and done_at: what the percentiles are of.';
comment on column network_performance.p50_seconds is 'done_at - sent_at of delivered messages, in whole seconds (0: less than one): half of them took no longer.';
comment on column network_performance.p90_seconds is 'The same, nine of ten.';

create view cost_daily as
select day, provider, channel, currency, sum(messages)::bigint as messages, sum(priced)::bigint as priced,
       case when sum(parted) > 0 then sum(segments)::bigint end as segments,
       case when sum(priced) > 0 then trim_scale(sum(cost)) end as cost,
       case when sum(part_priced) > 0 then trim_scale(sum(cost_by_segment)) end as cost_by_segment
from network_daily
group by day, provider, channel, currency
having sum(messages) <> 0;
comment on view cost_daily is 'What did the messages of a day cost, by currency? Trap: never add up different currencies.';
comment on column cost_daily.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column cost_daily.provider is 'infobip or messaging_plus. Trap: Messaging Plus gives no prices: one row without currency.';
comment on column cost_daily.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column cost_daily.currency is 'As the provider writes it; NULL where it gives none.';
comment on column cost_daily.messages is 'Messages, counted once for each destination, with a price or without.';
comment on column cost_daily.priced is 'Of these, with a price: what cost is of.';
comment on column cost_daily.segments is 'Message parts, of the messages whose report says it; NULL where none does.';
comment on column cost_daily.cost is 'Sum of price, in currency, exact; NULL where no message has one. Trap: the provider''s word, not its invoice; failed messages may be charged or not.';
comment on column cost_daily.cost_by_segment is 'Sum of price * segments: use this one where your contract prices parts. Leaves out messages without segments.';

create view report_sources as
with counted as (
  select day, provider, channel, source, null::int as seconds, sum(messages) as messages,
         sum(final_messages) as final_messages, sum(reports) as reports
  from (
    select d.day, r.*
    from rollup_day d
    cross join lateral (
      select provider, channel, source, sum(messages) as messages, sum(final_messages) as final_messages,
             sum(reports) as reports
      from rollup_source
      where bucket >= start_of(d.day) and bucket < start_of(d.day + 1)
      group by provider, channel, source
    ) r
    union all
    select bucket::date, provider, channel, source, n, case when is_final then n else 0 end, n * report_count
    from message_change
    where is_pending
  ) s
  group by day, provider, channel, source
  union all
  select day, provider, channel, source, seconds, sum(messages), null, null
  from lag_daily
  group by day, provider, channel, source, seconds
), ranked as (
  select day, provider, channel, source, seconds, messages, final_messages, reports,
         sum(messages) over (partition by day, provider, channel, source, seconds is null order by seconds) as up_to,
         sum(messages) over (partition by day, provider, channel, source, seconds is null) as measured
  from counted
  where messages <> 0
)
select day, provider, channel, source, messages, final_messages, reports,
       round(messages / sum(messages) over (partition by day, provider, channel), 4) as share, measured,
       lag_p50_seconds, lag_p90_seconds, lag_p99_seconds, lag_max_seconds
from (
  select day, provider, channel, source, (sum(messages) filter (where seconds is null))::bigint as messages,
         sum(final_messages)::bigint as final_messages, sum(reports)::bigint as reports,
         coalesce(max(measured) filter (where seconds is not null), 0)::bigint as measured,
         min(seconds) filter (where up_to >= 0.5 * measured) as lag_p50_seconds,
         min(seconds) filter (where up_to >= 0.9 * measured) as lag_p90_seconds,
         min(seconds) filter (where up_to >= 0.99 * measured) as lag_p99_seconds,
         max(seconds) as lag_max_seconds
  from ranked
  group by day, provider, channel, source
) m;
comment on view report_sources is 'What came by push, by pull and by log, and how late? The verdict that stands counts. What came by pull or log was never pushed: the reconciler saved it.';
comment on column report_sources.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session: the same messages as in delivery_daily.';
comment on column report_sources.provider is 'infobip or messaging_plus.';
comment on column report_sources.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column report_sources.source is 'push, pull (one-time report or batch) or log: how the verdict that stands came. One that came in several ways, in the same words or not, counts as push before pull before log. sent: no report yet, the application told us.';
comment on column report_sources.messages is 'Messages, counted once for each destination.';
comment on column report_sources.final_messages is 'Of these, with a final verdict.';
comment on column report_sources.reports is 'Distinct reports of these messages, the ones that did not decide included. Trap: these may have come in another way.';
comment on column report_sources.share is 'Of all messages of that day, provider and channel, 0 to 1.';
comment on column report_sources.measured is 'Final messages with a done_at: what the lag is of. Messaging Plus gives none.';
comment on column report_sources.lag_p50_seconds is 'decided_at - done_at in whole seconds (0: less than one): half of the final messages were known within that time.';
comment on column report_sources.lag_p90_seconds is 'The same, nine of ten.';
comment on column report_sources.lag_p99_seconds is 'The same, 99 of 100.';
comment on column report_sources.lag_max_seconds is 'The longest.';

create view status_conflicts as
select coalesce(m.sent_at, m.first_seen_at)::date as day, m.provider, m.channel, m.message_id, m.destination, m.batch_id,
       m.status::text, m.status_code, m.source, v.lost, v.verdicts, v.first_verdict_at, v.last_verdict_at, m.updated_at
from message_status m
cross join lateral (
  select array_agg(distinct r.status::text) filter (where r.status <> m.status) as lost,
         count(*) as verdicts, min(r.received_at) as first_verdict_at, max(r.received_at) as last_verdict_at
  from delivery_report r
  where history_place(r.message_id, r.destination) = history_place(m.message_id, m.destination)
    and (r.provider, r.message_id, r.destination) = (m.provider, m.message_id, m.destination)
    and r.is_final and not r.of_reused_id
    and r.received_at between m.first_seen_at and m.updated_at  -- all of them: only these partitions are read
) v
where m.has_conflict;
comment on view status_conflicts is 'For which messages did the provider give two different final verdicts? message_status has the one that wins by rule; the history of each is in message_history. Trap: where that was dropped, nothing but the verdict that stands is left.';
comment on column status_conflicts.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column status_conflicts.provider is 'infobip or messaging_plus.';
comment on column status_conflicts.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column status_conflicts.message_id is 'The provider''s id of the message.';
comment on column status_conflicts.destination is 'Where it went.';
comment on column status_conflicts.batch_id is 'bulkId / batchuuid.';
comment on column status_conflicts.status is 'The verdict that stands: the one with the later done_at, else delivered before the failures.';
comment on column status_conflicts.status_code is 'The provider''s own code of the verdict that stands.';
comment on column status_conflicts.source is 'How the verdict that stands came.';
comment on column status_conflicts.lost is 'The other final verdicts, in alphabetical order; NULL where their history was dropped (HISTORY_RETENTION_DAYS).';
comment on column status_conflicts.verdicts is 'Distinct final reports that the history still has: 0 where it was dropped. A report about a re-used message id is none: it never makes a conflict.';
comment on column status_conflicts.first_verdict_at is 'When the first of them was received; NULL where there are none any more.';
comment on column status_conflicts.last_verdict_at is 'When the last of them was received.';
comment on column status_conflicts.updated_at is 'When the newest distinct report of the message was received.';

create view message_history as
select r.*
from message_status m
join delivery_report r
  on history_place(r.message_id, r.destination) = history_place(m.message_id, m.destination)
  and (r.provider, r.message_id, r.destination) = (m.provider, m.message_id, m.destination)
  and r.received_at >= m.first_seen_at;
comment on view message_history is 'What was reported of a message? One row per distinct report. Ask with provider and message_id: that answers at once, where delivery_report is read as a whole. Trap: nothing of a message that message_status has lost; receiver rebuild finds it.';
do $$ begin
  execute (select string_agg(format('comment on column message_history.%I is %L', attname, col_description(attrelid, attnum)), ';')
           from pg_attribute where attrelid = 'delivery_report'::regclass and attnum > 0);
end $$;
