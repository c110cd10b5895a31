/**
 * A Redis 7.0 in memory that executes the commands and scripts which Millrace sends, one at a time.
 *
 * A command that it does not know, or a known one with an option that it does not know, throws by name: the simulator must be
 * taught, never guess. `test/simulator-model.test.ts` holds it against a real server.
 */
import { DATA_COMMANDS } from './data-commands.ts'
import {
  BLOCKED,
  type CommandRule,
  Keyspace,
  type ServerClient,
  type Snapshot,
  type Waiter,
} from './keyspace.ts'
import { fault, OK, RedisFault, type Reply, SYNTAX } from './redis-replies.ts'
import { type LoadedScript, loadScript, runScript } from './script-runner.ts'
import { SERVER_COMMANDS } from './server-commands.ts'
import { STREAM_COMMANDS } from './stream-commands.ts'
import { READ_COMMANDS, serveWaiter } from './stream-reads.ts'

const COMMANDS: ReadonlyMap<string, CommandRule> = new Map([
  ...Object.entries(DATA_COMMANDS),
  ...Object.entries(STREAM_COMMANDS),
  ...Object.entries(READ_COMMANDS),
  ...Object.entries(SERVER_COMMANDS),
])

const OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'."

export type Answer = Reply | typeof BLOCKED

export class MemoryRedis extends Keyspace {
  isOutOfMemory = false
  readonly #scripts = new Set<string>()

  /** Executes one command as a client sent it. */
  execute(client: ServerClient | undefined, words: readonly string[]): Answer {
    this.frozenMs = this.clockMs()
    let answer: Answer
    try {
      answer = this.#dispatch(client, words)
    } catch (error) {
      if (!(error instanceof RedisFault)) throw error
      answer = error
    }
    this.#serveWaiters()
    this.frozenMs = undefined
    return answer
  }

  forgetScripts(): void {
    this.#scripts.clear()
  }

  override restart(snapshot: Snapshot | undefined): void {
    super.restart(snapshot)
    this.forgetScripts()
  }

  #dispatch(client: ServerClient | undefined, words: readonly string[]): Answer {
    const [name = '', ...args] = words
    const upper = name.toUpperCase()
    if (upper === 'EVALSHA' || upper === 'EVAL') return this.#eval(upper, args)
    if (upper === 'SCRIPT') return this.#script(args)
    return this.#run(client, upper, args, false)
  }

  /** One command, from a client or from a script. */
  #run(client: ServerClient | undefined, name: string, args: readonly string[], mayGrow: boolean): Answer {
    const rule = COMMANDS.get(name)
    if (rule === undefined) {
      throw new Error(`The in-memory Redis does not know ${name} ${args.join(' ').slice(0, 80)}; teach it.`)
    }
    if (args.length < rule.min || args.length > (rule.max ?? Number.POSITIVE_INFINITY)) {
      throw fault(
        client === undefined
          ? 'ERR Wrong number of args calling Redis command from script'
          : `ERR wrong number of arguments for '${name.toLowerCase()}' command`,
      )
    }
    if (rule.grows === true && this.isOutOfMemory && !mayGrow) throw fault(OUT_OF_MEMORY)
    return rule.run({ redis: this, args, client })
  }

  #eval(how: string, [script = '', count = '0', ...rest]: readonly string[]): Reply {
    const found = how === 'EVAL' ? loadScript(script) : loadScript.known(script)
    if (found === undefined || (how === 'EVALSHA' && !this.#scripts.has(script))) {
      throw fault('NOSCRIPT No matching script. Please use EVAL.')
    }
    this.#scripts.add(found.digest)
    return this.#runScript(found, rest.slice(0, Number(count)), rest.slice(Number(count)))
  }

  #runScript(script: LoadedScript, keys: readonly string[], args: readonly string[]): Reply {
    const { flags, hasFlags } = script
    const mayGrow = flags.has('allow-oom')
    if (this.isOutOfMemory && hasFlags && !mayGrow && !flags.has('no-writes')) throw fault(OUT_OF_MEMORY)
    return runScript(script, keys, args, (name, words) => {
      if (flags.has('no-writes') && COMMANDS.get(name)?.writes === true) {
        throw fault('ERR Write commands are not allowed from read-only scripts.')
      }
      const answer = this.#run(undefined, name, words, mayGrow)
      if (answer === BLOCKED) throw new Error(`${name} blocked inside a script`)
      return answer
    })
  }

  #script([action = '', source = '']: readonly string[]): Reply {
    switch (action.toUpperCase()) {
      case 'FLUSH':
        this.forgetScripts()
        return OK
      case 'LOAD': {
        const { digest } = loadScript(source)
        this.#scripts.add(digest)
        return digest
      }
      default:
        throw fault(SYNTAX)
    }
  }

  #serveWaiters(): void {
    if (this.deletedKeys.size > 0) this.#failWaiters()
    if (this.readyKeys.size === 0) return
    const ready = [...this.readyKeys]
    this.readyKeys.clear()
    for (const key of ready) {
      for (const waiter of this.#waitersOf(key)) {
        const reply = serveWaiter(this, waiter, key)
        if (reply !== undefined) this.release(waiter.client, reply)
      }
    }
  }

  /** Reads of a group whose stream is gone. */
  #failWaiters(): void {
    const gone = [...this.deletedKeys].filter((key) => !this.data.has(key))
    this.deletedKeys.clear()
    for (const key of gone) {
      for (const waiter of this.#waitersOf(key)) {
        if (waiter.group === undefined) continue
        this.release(waiter.client, fault('UNBLOCKED the stream key no longer exists'))
      }
    }
  }

  #waitersOf(key: string): Waiter[] {
    return this.waiters.filter((waiter) => waiter.after.has(key))
  }
}
