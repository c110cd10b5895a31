/** Runs Lua scripts on the in-memory Redis: values and replies turned into each other as Redis 7.0 does. */
import { type CompiledScript, compileLua, type RedisFunctions } from './lua-compiler.ts'
import { first, formatGeneral, LuaError, LuaTable, type LuaValue } from './lua-values.ts'
import { fault, RedisFault, type Reply, Status } from './redis-replies.ts'

export interface LoadedScript {
  readonly digest: string
  readonly flags: ReadonlySet<string>
  /** False for a script without `#!lua`: the old rules. */
  readonly hasFlags: boolean
  readonly compiled: CompiledScript
}

const loaded = new Map<string, LoadedScript>()
const bySource = new Map<string, LoadedScript>()

export function loadScript(source: string): LoadedScript {
  const known = bySource.get(source)
  if (known !== undefined) return known
  const digest = new Bun.CryptoHasher('sha1').update(Buffer.from(source, 'latin1')).digest('hex')
  let script = loaded.get(digest)
  if (script === undefined) {
    const flags = /^#!lua(?:\s+flags=(\S+))?/.exec(source)
    script = {
      digest,
      flags: new Set((flags?.[1] ?? '').split(',').filter((flag) => flag !== '')),
      hasFlags: flags !== null,
      compiled: compileLua(nameOf(source), source),
    }
    loaded.set(digest, script)
  }
  bySource.set(source, script)
  return script
}

loadScript.known = (digest: string): LoadedScript | undefined => loaded.get(digest)

/** The first words of its contract, to be named by in an error. */
function nameOf(source: string): string {
  const line = source.split('\n').find((each) => each.startsWith('--')) ?? 'a script'
  return `"${line.replace(/^-+\s*/, '').slice(0, 60)}"`
}

type Call = (name: string, args: readonly string[]) => Reply

/** @throws RedisFault as the server would answer; any other error is the simulator's own */
export function runScript(
  script: LoadedScript,
  keys: readonly string[],
  args: readonly string[],
  call: Call,
): Reply {
  try {
    const result = script.compiled(redisFunctions(call), new LuaTable([...keys]), new LuaTable([...args]))
    return toReply(first(result))
  } catch (error) {
    const place = ` script: ${script.digest}, on @user_script:1.`
    if (error instanceof RedisFault) throw fault(`${error.message}${place}`)
    if (error instanceof LuaError) throw fault(`ERR user_script:1: ${error.message}${place}`)
    throw error
  }
}

function redisFunctions(call: Call): RedisFunctions {
  const send = (values: readonly LuaValue[]): Reply => {
    const [name = '', ...args] = values.map(argument)
    return call(name.toUpperCase(), args)
  }
  return {
    call: (...values) => {
      const reply = send(values)
      if (reply instanceof RedisFault) throw reply
      return fromReply(reply)
    },
    pcall: (...values) => {
      try {
        return fromReply(send(values))
      } catch (error) {
        if (error instanceof RedisFault) return errorTable(error.message)
        throw error
      }
    },
    error_reply: (text) => errorTable(String(text)),
    status_reply: (text) => {
      const table = new LuaTable()
      table.set('ok', text)
      return table
    },
    acl_check_cmd: () => true,
    sha1hex: (text) => new Bun.CryptoHasher('sha1').update(Buffer.from(String(text), 'latin1')).digest('hex'),
    log: () => undefined,
  }
}

function argument(value: LuaValue): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number') return formatGeneral(value, 17)
  throw new LuaError('Lua redis lib command arguments must be strings or integers')
}

function errorTable(text: string): LuaTable {
  const table = new LuaTable()
  table.set('err', text)
  return table
}

function fromReply(reply: Reply): LuaValue {
  if (reply === null) return false
  if (typeof reply === 'number' || typeof reply === 'string') return reply
  if (reply instanceof RedisFault) return errorTable(reply.message)
  if (reply instanceof Status) {
    const table = new LuaTable()
    table.set('ok', reply.text)
    return table
  }
  return new LuaTable(reply.map(fromReply))
}

function toReply(value: LuaValue): Reply {
  if (value === undefined || value === false) return null
  if (value === true) return 1
  if (typeof value === 'number') return Math.trunc(value)
  if (typeof value === 'string') return value
  if (typeof value === 'function') return null
  const error = value.get('err')
  if (typeof error === 'string') return fault(error)
  const status = value.get('ok')
  if (typeof status === 'string') return new Status(status)
  return value.list.map(toReply)
}
