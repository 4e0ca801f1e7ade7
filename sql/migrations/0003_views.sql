-- What operators look at. Analysts' views come beside them.

-- Of many gaps each would count the same pulls again. Pulls are gathered once, as an array of their times for each channel;
-- how many of them came after a gap is found by bisection.
create view open_gaps as
with setting_values as (
  select (select value from setting where name = 'overdue_after') as overdue_after,
         (select value from setting where name = 'give_up_after') as give_up_after,
         (select value from setting where name = 'reconcile_interval') as reconcile_interval
),
recent_pulls as (
  select p.provider, p.channel, p.endpoint, p.started_at, p.outcome, p.error
  from setting_values s
  join pull p on p.started_at >= now() - s.give_up_after
  where p.source = 'pull' and p.batch_id is null
    and p.endpoint <> '/dr-responses'  -- asks for codes, not for messages
),
stores as (
  select distinct provider, channel from recent_pulls
),
asked as materialized (
  -- by channel of a message; '*': it has none, so any store may have it; '': one that no store is of
  select c.provider, c.channel, array_agg(p.started_at order by p.started_at) as times,
         (array_agg(p.outcome order by p.started_at))[count(*)::int] as last_outcome,
         (array_agg(p.error order by p.started_at))[count(*)::int] as last_error,
         (array_agg(p.endpoint order by p.started_at))[count(*)::int] as endpoint
  from (
    select provider, channel from stores where channel is not null
    union select provider, unnest(array['*', '']) from stores
  ) c
  join recent_pulls p on p.provider = c.provider and (p.channel = c.channel or p.channel is null or c.channel = '*')
  group by c.provider, c.channel
),
waiting as (
  select m.provider, m.channel, m.message_id, m.destination, m.batch_id, m.status::text, m.status_code,
         m.report_count, m.first_seen_at, waiting_since(m.first_seen_at, m.sent_at) as since
  from message_status m
  where not m.is_final
  union all
  -- a batch of which we only know that it was sent, and where to
  select b.provider, null, null, d.destination, b.batch_id, null, null, 0, b.learned_at, b.learned_at
  from sent_batch b
  cross join lateral (
    select unnest(b.destinations) as destination
    except
    select m.destination from message_status m
    where (m.provider, m.batch_id) = (b.provider, b.batch_id) and b.destinations <> '{}'
    union all
    select null
    where b.destinations = '{}'
      and not exists (select from message_status m where (m.provider, m.batch_id) = (b.provider, b.batch_id))
  ) d
  where not b.is_named
)
select w.provider, w.channel, w.message_id, w.destination, w.batch_id, w.status, w.status_code, w.report_count,
       w.first_seen_at,
       w.since + s.overdue_after as overdue_since,
       tried.pulls, tried.last_pull_at, tried.last_outcome, tried.last_error,
       looked_up.checks as log_checks, looked_up.checked_at as last_log_check_at,
       given_up.given_up,
       case
         when given_up.given_up then null
         when b.batch_id is not null then b.next_pull_at
         else least(looked_up.next_check_at, greatest(tried.last_pull_at + s.reconcile_interval, l.not_before))
       end as next_pull_at,
       case
         when given_up.given_up then 'given up'
         when b.next_pull_at is not null then 'batch is pulled again'
         when b.batch_id is not null then 'waits for a push: its batch is not asked about any more'
         when tried.pulls is null then 'never pulled: is the reconciler running, are the provider''s variables set?'
         when l.failures > 0 then 'pull is repeated after a failure'
         when looked_up.next_check_at is not null then 'reports are pulled and logs searched again'
         else 'reports are pulled again'
       end as next_step
from waiting w
cross join setting_values s
left join sent_batch b on (b.provider, b.batch_id) = (w.provider, w.batch_id)
cross join lateral (
  select greatest(w.since, b.learned_at, b.reopened_at) + s.give_up_after <= now()
) given_up (given_up)
left join lateral (
  select count(*) as pulls, max(p.started_at) as last_pull_at,
         (array_agg(p.outcome order by p.started_at desc))[1] as last_outcome,
         (array_agg(p.error order by p.started_at desc))[1] as last_error
  from pull p
  where (p.provider, p.batch_id) = (b.provider, b.batch_id) and p.source = 'pull'
    and p.started_at >= b.learned_at  -- a batch's first pull may name the message
) of_batch on true
left join asked own on (own.provider, own.channel) = (w.provider, coalesce(w.channel, '*'))
left join asked other on other.provider = w.provider and other.channel = '' and own.provider is null
cross join lateral (
  select case when b.batch_id is null then coalesce(own.times, other.times) end as times,
         coalesce(own.last_outcome, other.last_outcome) as last_outcome,
         coalesce(own.last_error, other.last_error) as last_error, coalesce(own.endpoint, other.endpoint) as endpoint
) of_store
cross join lateral (
  select case when b.batch_id is null
              then cardinality(of_store.times) - width_bucket(w.first_seen_at - interval '1 microsecond', of_store.times)
              else of_batch.pulls end as pulls
  offset 0  -- counted once, and not wherever it is used
) counted
left join lateral (
  select counted.pulls,
         case when b.batch_id is null then of_store.times[cardinality(of_store.times)] else of_batch.last_pull_at end
           as last_pull_at,
         case when b.batch_id is null then of_store.last_outcome else of_batch.last_outcome end as last_outcome,
         case when b.batch_id is null then of_store.last_error else of_batch.last_error end as last_error
) tried on counted.pulls > 0
left join (
  select provider, message_id, sum(checks)::int as checks, max(checked_at) as checked_at,
         min(next_check_at) as next_check_at
  from message_check
  group by provider, message_id
) looked_up on (looked_up.provider, looked_up.message_id) = (w.provider, w.message_id)
left join pull_lease l on (l.provider, l.endpoint) = (w.provider, of_store.endpoint) and b.batch_id is null
  and tried.pulls is not null
where w.since + s.overdue_after <= now();

comment on view open_gaps is 'Every message that should have a final report by now and has none: since when, what was tried, what happens next. Given up messages stay here.';
comment on column open_gaps.provider is 'infobip or messaging_plus.';
comment on column open_gaps.channel is 'sms, facebook, …; NULL where no report says it.';
comment on column open_gaps.message_id is 'NULL: only the batch is known, the provider has not named its messages yet.';
comment on column open_gaps.destination is 'Where it went; NULL where nobody told us yet.';
comment on column open_gaps.batch_id is 'bulkId / batchuuid.';
comment on column open_gaps.status is 'The status so far; NULL where nothing came at all.';
comment on column open_gaps.status_code is 'The provider''s own code so far.';
comment on column open_gaps.report_count is 'Distinct reports so far.';
comment on column open_gaps.first_seen_at is 'When we first heard of it.';
comment on column open_gaps.overdue_since is 'first_seen_at, or sent_at where it was sent later, + OVERDUE_AFTER_SECONDS.';
comment on column open_gaps.pulls is 'How many pulls could have brought its report since we heard of it; NULL: none. Of one-time stores those of the last GIVE_UP_AFTER_HOURS count.';
comment on column open_gaps.last_pull_at is 'When the last of them started.';
comment on column open_gaps.last_outcome is 'How the last of them ended, see pull.outcome.';
comment on column open_gaps.last_error is 'What went wrong in the last of them.';
comment on column open_gaps.log_checks is 'How often it was looked up in the provider''s logs; NULL: not yet, or the provider has no log for it.';
comment on column open_gaps.last_log_check_at is 'When last.';
comment on column open_gaps.given_up is 'We heard of it, and it was sent, and a push last reopened its batch, longer ago than GIVE_UP_AFTER_HOURS: nothing more is tried. A push revives its batch.';
comment on column open_gaps.next_pull_at is 'When the next pull is due, as far as we can tell.';
comment on column open_gaps.next_step is 'What happens next, in words.';

create view batch_progress as
select b.provider, b.batch_id, b.learned_at, b.total, b.delivered, b.failed,
       m.messages, m.messages_delivered, m.messages_failed, m.messages_open,
       b.total is not null and (b.total, b.delivered, b.failed)
         is distinct from (m.messages, m.messages_delivered, m.messages_failed) as counts_differ,
       b.pulls, b.pulled_at, b.next_pull_at
from sent_batch b
cross join lateral (
  select count(*)::int as messages,
         (count(*) filter (where status = 'delivered'))::int as messages_delivered,
         (count(*) filter (where status in ('undeliverable', 'expired', 'rejected')))::int as messages_failed,
         (count(*) filter (where not is_final))::int as messages_open
  from message_status m
  where (m.provider, m.batch_id) = (b.provider, b.batch_id)
) m;
comment on view batch_progress is 'How far each followed batch is, and whether the provider''s counts agree with its details.';
comment on column batch_progress.provider is 'messaging_plus.';
comment on column batch_progress.batch_id is 'batchuuid.';
comment on column batch_progress.learned_at is 'When we learned of the batch.';
comment on column batch_progress.total is 'counts.total of the last answer, NULL before the first.';
comment on column batch_progress.delivered is 'counts.delivered of the last answer.';
comment on column batch_progress.failed is 'counts.failed of the last answer.';
comment on column batch_progress.messages is 'Rows of message_status in this batch.';
comment on column batch_progress.messages_delivered is 'Of these, delivered.';
comment on column batch_progress.messages_failed is 'Of these, undeliverable, expired or rejected, final or not.';
comment on column batch_progress.messages_open is 'Of these, not final.';
comment on column batch_progress.counts_differ is 'The provider''s counts contradict our rows. Trap: true for a while when pushes run ahead of the pull.';
comment on column batch_progress.pulls is 'How often it was asked about.';
comment on column batch_progress.pulled_at is 'When last.';
comment on column batch_progress.next_pull_at is 'When next; NULL: no more.';

create view reconciler_runs as
select p.provider, p.endpoint, h.hour, p.pulls, p.ok, p.failed, p.entries, p.fresh, p.last_started_at
from generate_series((select date_trunc('hour', min(started_at)) from pull), (select max(started_at) from pull),
                     interval '1 hour') h (hour)
cross join lateral (
  select provider, endpoint, count(*) as pulls, count(*) filter (where outcome = 'ok') as ok,
         count(*) filter (where outcome not in ('ok', 'started')) as failed,
         sum(entries) as entries, sum(fresh) as fresh, max(started_at) as last_started_at
  from pull
  where started_at >= h.hour and started_at < h.hour + interval '1 hour'
  group by provider, endpoint
) p;
comment on view reconciler_runs is 'What the reconciler did, hour by hour and store by store.';
comment on column reconciler_runs.provider is 'infobip or messaging_plus.';
comment on column reconciler_runs.endpoint is 'The store that was read.';
comment on column reconciler_runs.hour is 'Start of the hour, in the time zone of the session.';
comment on column reconciler_runs.pulls is 'GETs sent.';
comment on column reconciler_runs.ok is 'Of these, answered and understood.';
comment on column reconciler_runs.failed is 'Of these, failed or interrupted.';
comment on column reconciler_runs.entries is 'Entries in the answers.';
comment on column reconciler_runs.fresh is 'Of these, new to us: what the reconciler saved.';
comment on column reconciler_runs.last_started_at is 'When the last one started.';
