/**
 * Every Lua script by name, with its SHA-1 digest. Each script is a function: its file starts with its contract
 * (KEYS, ARGV, Returns). Typed callers stand in the store that owns the data.
 */
import append from './lua/append.lua' with { type: 'text' }
import appendKeyed from './lua/append-keyed.lua' with { type: 'text' }
import appendOnce from './lua/append-once.lua' with { type: 'text' }
import appendOwned from './lua/append-owned.lua' with { type: 'text' }
import askPartition from './lua/ask-partition.lua' with { type: 'text' }
import beat from './lua/beat.lua' with { type: 'text' }
import cancel from './lua/cancel.lua' with { type: 'text' }
import chargeSuspects from './lua/charge-suspects.lua' with { type: 'text' }
import commitViews from './lua/commit-views.lua' with { type: 'text' }
import discardDead from './lua/discard-dead.lua' with { type: 'text' }
import dropFinished from './lua/drop-finished.lua' with { type: 'text' }
import ensureGroup from './lua/ensure-group.lua' with { type: 'text' }
import findDead from './lua/find-dead.lua' with { type: 'text' }
import fire from './lua/fire.lua' with { type: 'text' }
import forgetGone from './lua/forget-gone.lua' with { type: 'text' }
import forgetMember from './lua/forget-member.lua' with { type: 'text' }
import leaseRelease from './lua/lease-release.lua' with { type: 'text' }
import leaseRenew from './lua/lease-renew.lua' with { type: 'text' }
import leaseTake from './lua/lease-take.lua' with { type: 'text' }
import limitBucket from './lua/limit-bucket.lua' with { type: 'text' }
import limitWindow from './lua/limit-window.lua' with { type: 'text' }
import markRunning from './lua/mark-running.lua' with { type: 'text' }
import missingRights from './lua/missing-rights.lua' with { type: 'text' }
import noteKeysUsed from './lua/note-keys-used.lua' with { type: 'text' }
import openReader from './lua/open-reader.lua' with { type: 'text' }
import overview from './lua/overview.lua' with { type: 'text' }
import progress from './lua/progress.lua' with { type: 'text' }
import promote from './lua/promote.lua' with { type: 'text' }
import putKey from './lua/put-key.lua' with { type: 'text' }
import readDead from './lua/read-dead.lua' with { type: 'text' }
import readEvents from './lua/read-events.lua' with { type: 'text' }
import readKeys from './lua/read-keys.lua' with { type: 'text' }
import readOpen from './lua/read-open.lua' with { type: 'text' }
import readViews from './lua/read-views.lua' with { type: 'text' }
import recountTenants from './lua/recount-tenants.lua' with { type: 'text' }
import redriveDead from './lua/redrive-dead.lua' with { type: 'text' }
import release from './lua/release.lua' with { type: 'text' }
import releasePartition from './lua/release-partition.lua' with { type: 'text' }
import removeConsumer from './lua/remove-consumer.lua' with { type: 'text' }
import restoreIds from './lua/restore-ids.lua' with { type: 'text' }
import restoreOutbox from './lua/restore-outbox.lua' with { type: 'text' }
import sample from './lua/sample.lua' with { type: 'text' }
import sampleLeases from './lua/sample-leases.lua' with { type: 'text' }
import schedulePause from './lua/schedule-pause.lua' with { type: 'text' }
import scheduleRegister from './lua/schedule-register.lua' with { type: 'text' }
import serverState from './lua/server-state.lua' with { type: 'text' }
import settle from './lua/settle.lua' with { type: 'text' }
import status from './lua/status.lua' with { type: 'text' }
import stopReader from './lua/stop-reader.lua' with { type: 'text' }
import sweepRecords from './lua/sweep-records.lua' with { type: 'text' }
import takePartition from './lua/take-partition.lua' with { type: 'text' }
import takeover from './lua/takeover.lua' with { type: 'text' }
import trimCommands from './lua/trim-commands.lua' with { type: 'text' }
import trimDead from './lua/trim-dead.lua' with { type: 'text' }
import trimEvents from './lua/trim-events.lua' with { type: 'text' }

export interface Script {
  readonly source: string
  readonly digest: string
}

function script(source: string): Script {
  return { source, digest: new Bun.CryptoHasher('sha1').update(source).digest('hex') }
}

export type ScriptName =
  | 'append'
  | 'append-keyed'
  | 'append-once'
  | 'append-owned'
  | 'ask-partition'
  | 'charge-suspects'
  | 'forget-member'
  | 'release-partition'
  | 'sample-leases'
  | 'take-partition'
  | 'beat'
  | 'cancel'
  | 'commit-views'
  | 'discard-dead'
  | 'drop-finished'
  | 'ensure-group'
  | 'fire'
  | 'find-dead'
  | 'forget-gone'
  | 'lease-release'
  | 'lease-renew'
  | 'lease-take'
  | 'limit-bucket'
  | 'limit-window'
  | 'mark-running'
  | 'missing-rights'
  | 'note-keys-used'
  | 'open-reader'
  | 'overview'
  | 'progress'
  | 'promote'
  | 'put-key'
  | 'read-dead'
  | 'read-keys'
  | 'read-open'
  | 'read-events'
  | 'read-views'
  | 'recount-tenants'
  | 'redrive-dead'
  | 'release'
  | 'remove-consumer'
  | 'restore-ids'
  | 'restore-outbox'
  | 'sample'
  | 'schedule-pause'
  | 'schedule-register'
  | 'server-state'
  | 'settle'
  | 'status'
  | 'sweep-records'
  | 'stop-reader'
  | 'takeover'
  | 'trim-commands'
  | 'trim-dead'
  | 'trim-events'

const SOURCES: Readonly<Record<ScriptName, string>> = {
  append,
  'append-keyed': appendKeyed,
  'append-once': appendOnce,
  'append-owned': appendOwned,
  'ask-partition': askPartition,
  'charge-suspects': chargeSuspects,
  'forget-member': forgetMember,
  'release-partition': releasePartition,
  'sample-leases': sampleLeases,
  'take-partition': takePartition,
  beat,
  cancel,
  'commit-views': commitViews,
  'discard-dead': discardDead,
  'drop-finished': dropFinished,
  'ensure-group': ensureGroup,
  fire,
  'find-dead': findDead,
  'forget-gone': forgetGone,
  'lease-release': leaseRelease,
  'lease-renew': leaseRenew,
  'lease-take': leaseTake,
  'limit-bucket': limitBucket,
  'limit-window': limitWindow,
  'mark-running': markRunning,
  'missing-rights': missingRights,
  'note-keys-used': noteKeysUsed,
  'open-reader': openReader,
  overview,
  progress,
  promote,
  'put-key': putKey,
  'read-dead': readDead,
  'read-keys': readKeys,
  'read-open': readOpen,
  'read-events': readEvents,
  'read-views': readViews,
  'recount-tenants': recountTenants,
  'redrive-dead': redriveDead,
  release,
  'remove-consumer': removeConsumer,
  'restore-ids': restoreIds,
  'restore-outbox': restoreOutbox,
  sample,
  'schedule-pause': schedulePause,
  'schedule-register': scheduleRegister,
  'server-state': serverState,
  settle,
  status,
  'sweep-records': sweepRecords,
  'stop-reader': stopReader,
  takeover,
  'trim-commands': trimCommands,
  'trim-dead': trimDead,
  'trim-events': trimEvents,
}

export const SCRIPTS: Readonly<Record<ScriptName, Script>> = Object.fromEntries(
  Object.entries(SOURCES).map(([name, source]) => [name, script(source)]),
) as Record<ScriptName, Script>
