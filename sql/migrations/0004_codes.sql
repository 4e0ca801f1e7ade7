-- The providers' codes and what they mean. Filled from sql/codes/*.csv by every migrate.

create table infobip_status_code (
  status_code text not null,
  group_id int not null,
  group_name text not null,
  name text not null,
  is_final boolean not null,
  description text not null,
  primary key (status_code, group_id)
);
comment on table infobip_status_code is 'Infobip status ids. Trap: 87 is in two groups, so join by status_code and group.';
comment on column infobip_status_code.status_code is 'Infobip status id.';
comment on column infobip_status_code.group_id is 'Infobip status group id.';
comment on column infobip_status_code.group_name is 'Infobip status group.';
comment on column infobip_status_code.name is 'Infobip''s name.';
comment on column infobip_status_code.is_final is 'Whether Infobip may still change it.';
comment on column infobip_status_code.description is 'What it means.';

create table infobip_error_code (
  error_code text not null,
  group_id int not null,
  group_name text not null,
  name text not null,
  is_permanent boolean,
  description text not null,
  primary key (error_code, group_id)
);
comment on table infobip_error_code is 'Infobip error ids. Trap: 4102 is in two groups; is_permanent changed over the years, the flag of the report counts.';
comment on column infobip_error_code.error_code is 'Infobip error id.';
comment on column infobip_error_code.group_id is 'Infobip error group id.';
comment on column infobip_error_code.group_name is 'Infobip error group.';
comment on column infobip_error_code.name is 'Infobip''s name. Trap: the spelling varies.';
comment on column infobip_error_code.is_permanent is 'Infobip''s table; the report''s own flag is message_status.error_permanent.';
comment on column infobip_error_code.description is 'What it means.';

create table messaging_plus_code (
  code text primary key,
  class text not null,
  is_final boolean,
  description text not null,
  provider_description text,
  refreshed_at timestamptz
);
comment on table messaging_plus_code is 'Messaging Plus codes: TP-Status octets (3GPP TS 23.040 §9.2.3.15) with vendor additions.';
comment on column messaging_plus_code.code is 'Two upper-case hex digits.';
comment on column messaging_plus_code.class is 'completed (00-1F), temporary_still_trying (20-3F), permanent (40-5F), temporary_no_more_attempts (60-7F), reserved (80-FF).';
comment on column messaging_plus_code.is_final is 'Whether the centre has stopped trying; NULL: unknown.';
comment on column messaging_plus_code.description is 'What it means by 3GPP and by the vendor''s public list.';
comment on column messaging_plus_code.provider_description is 'The provider''s own text, from its live list.';
comment on column messaging_plus_code.refreshed_at is 'When the live list last had it.';
