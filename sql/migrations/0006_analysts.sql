-- What analysts look at. The day of a message is the day on which it was sent, and where the provider gives no time the
-- day on which we first heard of it: coalesce(sent_at, first_seen_at), in the time zone of the session. Every view walks
-- the days and reads each by an index, so that `where day = …` and `where day >= …` read these days only, whatever the
-- time zone is.

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

-- delivery_daily, delivery_latency_daily, failure_reasons, network_performance, cost_daily: the messages of a day
create index message_status_day on message_status ((coalesce(sent_at, first_seen_at)));
-- status_conflicts: a message in a thousand
create index message_status_conflict on message_status (updated_at) where has_conflict;
-- report_sources: the reports of a day
create index delivery_report_received on delivery_report (received_at);
-- reconciler_runs: the pulls of an hour
create index pull_hour on pull (started_at);

create view message_day as
with recursive days (day) as (
  (select coalesce(sent_at, first_seen_at)::date from message_status order by coalesce(sent_at, first_seen_at) limit 1)
  union
  select (select coalesce(m.sent_at, m.first_seen_at)::date from message_status m
          where coalesce(m.sent_at, m.first_seen_at) >= (days.day + 1)::timestamptz
          order by coalesce(m.sent_at, m.first_seen_at) limit 1)
  from days where days.day is not null
)
select day from days where day is not null;
comment on view message_day is 'The days that have messages: what the other views walk.';
comment on column message_day.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session (UTC unless set otherwise).';

create view delivery_daily as
select d.day, m.provider, m.channel, m.messages, m.delivered, m.undeliverable, m.expired, m.rejected, m.sent, m.pending,
       m.open, round(m.delivered::numeric / m.messages, 4) as delivery_rate
from message_day d
cross join lateral (
  select provider, channel, count(*) as messages,
         count(*) filter (where status = 'delivered') as delivered,
         count(*) filter (where status = 'undeliverable') as undeliverable,
         count(*) filter (where status = 'expired') as expired,
         count(*) filter (where status = 'rejected') as rejected,
         count(*) filter (where status = 'sent') as sent,
         count(*) filter (where status = 'pending') as pending,
         count(*) filter (where not is_final) as open
  from message_status
  where coalesce(sent_at, first_seen_at) >= d.day::timestamptz
    and coalesce(sent_at, first_seen_at) < (d.day + 1)::timestamptz
  group by provider, channel
) m;
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

create view delivery_latency_daily as
select d.day, m.provider, m.channel, m.delivered, m.measured,
       round(m.latency[1]::numeric, 3) as p50_seconds, round(m.latency[2]::numeric, 3) as p90_seconds,
       round(m.latency[3]::numeric, 3) as p99_seconds,
       m.lag_measured, round(m.lag[1]::numeric, 3) as lag_p50_seconds,
       round(m.lag[2]::numeric, 3) as lag_p90_seconds, round(m.lag[3]::numeric, 3) as lag_p99_seconds
from message_day d
cross join lateral (
  select provider, channel, count(*) filter (where status = 'delivered') as delivered,
         count(*) filter (where status = 'delivered' and done_at is not null and sent_at is not null) as measured,
         percentile_disc(array[0.5, 0.9, 0.99]) within group (order by extract(epoch from done_at - sent_at)::float8)
           filter (where status = 'delivered') as latency,
         count(*) filter (where is_final and done_at is not null) as lag_measured,
         percentile_disc(array[0.5, 0.9, 0.99]) within group (order by extract(epoch from updated_at - done_at)::float8)
           filter (where is_final) as lag
  from message_status
  where coalesce(sent_at, first_seen_at) >= d.day::timestamptz
    and coalesce(sent_at, first_seen_at) < (d.day + 1)::timestamptz
  group by provider, channel
) m;
comment on view delivery_latency_daily is 'How fast were the messages of a day delivered, and how long after that did we know? A percentile is the value of a real message: the smallest that at least so many have or are below. NULL where nothing is measured.';
comment on column delivery_latency_daily.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column delivery_latency_daily.provider is 'infobip or messaging_plus. Trap: Messaging Plus gives no times, so it has rows without percentiles.';
comment on column delivery_latency_daily.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column delivery_latency_daily.delivered is 'Delivered messages.';
comment on column delivery_latency_daily.measured is 'Of these, with both sent_at and done_at: what the percentiles are of.';
comment on column delivery_latency_daily.p50_seconds is 'done_at - sent_at of delivered messages, in seconds: half of them took no longer. Trap: two clocks may give a negative one; percentiles of days cannot be averaged.';
comment on column delivery_latency_daily.p90_seconds is 'The same, nine of ten.';
comment on column delivery_latency_daily.p99_seconds is 'The same, 99 of 100.';
comment on column delivery_latency_daily.lag_measured is 'Messages with a final report and a done_at, delivered or not: what the lag is of.';
comment on column delivery_latency_daily.lag_p50_seconds is 'Our own lag: updated_at - done_at of finished messages, in seconds. Trap: a further report that changed nothing counts as an update too; report_sources has the lag of each report.';
comment on column delivery_latency_daily.lag_p90_seconds is 'The same, nine of ten.';
comment on column delivery_latency_daily.lag_p99_seconds is 'The same, 99 of 100.';

create view failure_reasons as
select d.day, m.provider, m.channel, m.status::text, m.is_final,
       m.status_code, coalesce(s.name, m.status_name) as status_name,
       coalesce(s.description, p.provider_description, p.description, m.status_description) as status_meaning,
       m.error_code, coalesce(e.name, m.error_name) as error_name, e.description as error_meaning,
       case when m.provider = 'infobip' and m.error_code <> '0' then coalesce(m.error_permanent, e.is_permanent)
            when p.class = 'permanent' then true
            when p.class like 'temporary%' then false end as is_permanent,
       m.messages
from message_day d
cross join lateral (
  select provider, channel, status, is_final, status_code, error_code, error_permanent,
         max(status_name) as status_name, max(status_description) as status_description, max(error_name) as error_name,
         count(*) as messages
  from message_status
  where coalesce(sent_at, first_seen_at) >= d.day::timestamptz
    and coalesce(sent_at, first_seen_at) < (d.day + 1)::timestamptz
    and status in ('undeliverable', 'expired', 'rejected')
  group by provider, channel, status, is_final, status_code, error_code, error_permanent
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
left join messaging_plus_code p on m.provider = 'messaging_plus' and p.code = m.status_code;
comment on view failure_reasons is 'Why were the messages of a day not delivered? Each failed message is counted in one row. Trap: 87 and 4102 are in two groups of Infobip''s lists; 87 has the meaning of the group that the message is in, 4102 the first one.';
comment on column failure_reasons.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column failure_reasons.provider is 'infobip or messaging_plus.';
comment on column failure_reasons.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column failure_reasons.status is 'undeliverable, expired or rejected.';
comment on column failure_reasons.is_final is 'false: the provider still tries, the failure may go away.';
comment on column failure_reasons.status_code is 'Infobip status id; Messaging Plus code as two upper-case hex digits; NULL where the report gives none.';
comment on column failure_reasons.status_name is 'The name in the code list, else in the report.';
comment on column failure_reasons.status_meaning is 'What the status means: by the code list (Messaging Plus: its live list first), else as the report says.';
comment on column failure_reasons.error_code is 'Infobip error id. Trap: 0 is no error, and comes with real failures where the operator tells no reason.';
comment on column failure_reasons.error_name is 'The name in the code list, else in the report.';
comment on column failure_reasons.error_meaning is 'What the error means, by the code list.';
comment on column failure_reasons.is_permanent is 'Whether it is useless to try this destination again. Infobip: the flag of the report, else of the list; Messaging Plus: the class of the code. NULL: nobody says.';
comment on column failure_reasons.messages is 'Messages, counted once for each destination.';

create view network_performance as
select d.day, m.provider, m.channel, m.mcc_mnc, coalesce(n.country_code, c.country_code) as country_code,
       coalesce(n.country, c.country) as country, n.operator, m.messages, m.delivered, m.failed, m.open,
       round(m.delivered::numeric / m.messages, 4) as delivery_rate, m.measured,
       round(m.latency[1]::numeric, 3) as p50_seconds, round(m.latency[2]::numeric, 3) as p90_seconds
from message_day d
cross join lateral (
  select provider, channel, mcc_mnc, count(*) as messages,
         count(*) filter (where status = 'delivered') as delivered,
         count(*) filter (where status in ('undeliverable', 'expired', 'rejected')) as failed,
         count(*) filter (where not is_final) as open,
         count(*) filter (where status = 'delivered' and done_at is not null and sent_at is not null) as measured,
         percentile_disc(array[0.5, 0.9]) within group (order by extract(epoch from done_at - sent_at)::float8)
           filter (where status = 'delivered') as latency
  from message_status
  where coalesce(sent_at, first_seen_at) >= d.day::timestamptz
    and coalesce(sent_at, first_seen_at) < (d.day + 1)::timestamptz
  group by provider, channel, mcc_mnc
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
comment on column network_performance.p50_seconds is 'done_at - sent_at of delivered messages, in seconds: half of them took no longer.';
comment on column network_performance.p90_seconds is 'The same, nine of ten.';

create view cost_daily as
select d.day, m.*
from message_day d
cross join lateral (
  select provider, channel, currency, count(*) as messages, count(price) as priced, sum(segments) as segments,
         sum(price) as cost, sum(price * segments) as cost_by_segment
  from message_status
  where coalesce(sent_at, first_seen_at) >= d.day::timestamptz
    and coalesce(sent_at, first_seen_at) < (d.day + 1)::timestamptz
  group by provider, channel, currency
) m;
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
with recursive days (day) as (
  (select r.received_at::date from delivery_report r order by r.received_at limit 1)
  union
  select (select r.received_at::date from delivery_report r
          where r.received_at >= (days.day + 1)::timestamptz order by r.received_at limit 1)
  from days where days.day is not null
)
select d.day, r.provider, r.channel, r.source::text, r.reports, r.final_reports, r.share, r.measured,
       round(r.lag[1]::numeric, 3) as lag_p50_seconds, round(r.lag[2]::numeric, 3) as lag_p90_seconds,
       round(r.lag[3]::numeric, 3) as lag_p99_seconds, round(r.longest::numeric, 3) as lag_max_seconds
from days d
cross join lateral (
  select provider, channel, source, count(*) as reports, count(*) filter (where is_final) as final_reports,
         round(count(*) / sum(count(*)) over (partition by provider, channel), 4) as share,
         count(done_at) as measured,
         percentile_disc(array[0.5, 0.9, 0.99]) within group (order by extract(epoch from received_at - done_at)::float8)
           as lag,
         extract(epoch from max(received_at - done_at))::float8 as longest
  from delivery_report
  where received_at >= d.day::timestamptz and received_at < (d.day + 1)::timestamptz and source <> 'sent'
  group by provider, channel, source
) r
where d.day is not null;
comment on view report_sources is 'What came by push, by pull and by log, and how late? What came by pull or log was never pushed: the reconciler saved it.';
comment on column report_sources.day is 'Day on which we received the report, in the time zone of the session. Trap: not the day of the message.';
comment on column report_sources.provider is 'infobip or messaging_plus.';
comment on column report_sources.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column report_sources.source is 'push, pull (one-time report or batch) or log. A report that came in several ways counts once, as push before pull before log.';
comment on column report_sources.reports is 'Distinct reports. Trap: a message may have several, so this is not a number of messages.';
comment on column report_sources.final_reports is 'Of these, final verdicts.';
comment on column report_sources.share is 'Of all reports of that day, provider and channel, 0 to 1.';
comment on column report_sources.measured is 'Reports with a done_at: what the lag is of. Messaging Plus gives none.';
comment on column report_sources.lag_p50_seconds is 'received_at - done_at in seconds: half of the reports were with us within that time. Trap: received_at is the first time, by whatever way.';
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
  where (r.provider, r.message_id, r.destination) = (m.provider, m.message_id, m.destination)
    and r.is_final and not r.of_reused_id
) v
where m.has_conflict;
comment on view status_conflicts is 'For which messages did the provider give two different final verdicts? message_status has the one that wins by rule; the history of each is in delivery_report.';
comment on column status_conflicts.day is 'Day of sent_at, else of first_seen_at, in the time zone of the session.';
comment on column status_conflicts.provider is 'infobip or messaging_plus.';
comment on column status_conflicts.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column status_conflicts.message_id is 'The provider''s id of the message.';
comment on column status_conflicts.destination is 'Where it went.';
comment on column status_conflicts.batch_id is 'bulkId / batchuuid.';
comment on column status_conflicts.status is 'The verdict that stands: the one with the later done_at, else delivered before the failures.';
comment on column status_conflicts.status_code is 'The provider''s own code of the verdict that stands.';
comment on column status_conflicts.source is 'How the verdict that stands came.';
comment on column status_conflicts.lost is 'The other final verdicts, in alphabetical order.';
comment on column status_conflicts.verdicts is 'Distinct final reports. A report about a re-used message id is none: it never makes a conflict.';
comment on column status_conflicts.first_verdict_at is 'When the first of them was received.';
comment on column status_conflicts.last_verdict_at is 'When the last of them was received.';
comment on column status_conflicts.updated_at is 'When the newest distinct report of the message was received.';

do $$ begin
  if to_regrole('receiver_analyst') is not null then
    grant select on mobile_network to receiver_analyst;
  end if;
end $$;
