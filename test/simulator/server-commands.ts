/** What concerns the server and its connections: time, INFO, CLIENT, PUBLISH. */
import { wholeNumber } from './data-commands.ts'
import type { CommandCall, CommandRule } from './keyspace.ts'
import { fault, OK, type Reply, Status, SYNTAX } from './redis-replies.ts'

function time({ redis }: CommandCall): Reply {
  const micros = Math.floor(redis.timeMs * 1000)
  return [String(Math.floor(micros / 1_000_000)), String(micros % 1_000_000)]
}

function client(call: CommandCall): Reply {
  const { redis, args, client: me } = call
  const [action = '', ...rest] = args
  switch (action.toUpperCase()) {
    case 'ID':
      return me?.id ?? 0
    case 'SETNAME':
      if (me !== undefined) me.name = rest[0] ?? ''
      return OK
    case 'KILL': {
      if ((rest[0] ?? '').toUpperCase() !== 'ID' || rest.length !== 2) {
        throw new Error(`The in-memory Redis does not know CLIENT KILL ${rest.join(' ')}; teach it.`)
      }
      const found = redis.clients.get(wholeNumber(rest[1]))
      found?.close()
      return found === undefined ? 0 : 1
    }
    case 'UNBLOCK': {
      const found = redis.clients.get(wholeNumber(rest[0]))
      const asError = (rest[1] ?? '').toUpperCase() === 'ERROR'
      const reply = asError ? fault('UNBLOCKED client unblocked via CLIENT UNBLOCK') : null
      return found !== undefined && redis.release(found, reply) ? 1 : 0
    }
    default:
      throw fault(SYNTAX)
  }
}

function info({ redis, args }: CommandCall): Reply {
  const section = (args[0] ?? 'default').toLowerCase()
  const lines = [
    ...['# Server', 'redis_version:7.0.15', 'redis_mode:standalone', 'process_id:1', `run_id:${redis.runId}`],
    ...['# Memory', 'used_memory:1000000', 'maxmemory:0', 'total_system_memory:1000000000'],
    ...[
      'maxmemory_policy:noeviction',
      '# Stats',
      'evicted_keys:0',
      '# Persistence',
      'loading:0',
      'aof_enabled:1',
      '# Replication',
    ],
    ...['role:master', 'connected_slaves:0'],
  ]
  if (section === 'default' || section === 'all') return `${lines.join('\r\n')}\r\n`
  const title = `# ${section.charAt(0).toUpperCase()}${section.slice(1)}`
  const start = lines.indexOf(title)
  if (start < 0) return ''
  const end = lines.findIndex((line, i) => i > start && line.startsWith('#'))
  return `${lines.slice(start, end < 0 ? undefined : end).join('\r\n')}\r\n`
}

export const SERVER_COMMANDS: Readonly<Record<string, CommandRule>> = {
  TIME: { min: 0, max: 0, run: time },
  PING: { min: 0, max: 1, run: ({ args: [text] }) => text ?? new Status('PONG') },
  INFO: { min: 0, max: 1, run: info },
  CLIENT: { min: 1, run: client },
  // Nobody subscribes in the simulator: notices go nowhere.
  PUBLISH: { min: 2, max: 2, run: () => 0 },
  FLUSHALL: {
    min: 0,
    max: 1,
    writes: true,
    run: ({ redis }) => {
      redis.clear()
      return OK
    },
  },
  KEYS: {
    min: 1,
    max: 1,
    run: ({ redis, args: [pattern = ''] }) => {
      if (pattern !== '*') throw new Error(`The in-memory Redis does not know KEYS ${pattern}; teach it.`)
      return redis.keys()
    },
  },
  MEMORY: {
    min: 2,
    run: ({ redis, args: [action = '', key = ''] }) => {
      if (action.toUpperCase() !== 'USAGE') throw fault(SYNTAX)
      const entries = redis.find(key, 'stream')?.entries
      if (entries === undefined) return null
      return entries.reduce(
        (sum, { fields }) => fields.reduce((bytes, field) => bytes + field.length + 16, sum),
        500,
      )
    },
  },
}
