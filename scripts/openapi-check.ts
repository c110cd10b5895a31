#!/usr/bin/env bun
/**
 * `bun run openapi:check`: the documents of a running process before strangers. Two validators take them, a generator makes a
 * client of one, the client type-checks, and its commands arrive.
 *
 *   millrace start ─▶ /openapi.json ─▶ redocly lint, openapi-schema-validator
 *         ▲                  └───────▶ openapi-typescript ─▶ tsc ─▶ client
 *         └───────────────────────────────────────────────────────────┘
 *
 * What it needs is in scripts/openapi-client, with a lock file of its own, and is downloaded when it is missing.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RunError } from './fleet/failure.ts'
import { freePorts } from './fleet/free-ports.ts'
import { type Interruptible, runToTheEnd } from './fleet/interruptible.ts'
import { RedisServer } from './fleet/redis-server.ts'
import { RoleProcess } from './fleet/role-process.ts'

const CLIENT = join(import.meta.dir, 'openapi-client')
const LISTENERS = ['public', 'admin'] as const

const tell = (line: string): void => console.log(`openapi: ${line}`)

class OpenApiCheck implements Interruptible {
  readonly #abort = new AbortController()
  #folder = ''
  #redis: RedisServer | undefined
  #process: RoleProcess | undefined

  async run(): Promise<number> {
    await this.#do('install', process.execPath, 'install', '--frozen-lockfile')
    const served = await this.#start()
    for (const listener of LISTENERS) {
      const path = `dist/${listener}.json`
      await Bun.write(join(CLIENT, path), await (await fetch(`${served.told(listener)}/openapi.json`)).text())
      await this.#do(`lint ${listener}`, 'node_modules/.bin/redocly', 'lint', path)
      await this.#do(`validate ${listener}`, 'node_modules/.bin/validate-api', path)
    }
    const types = ['dist/public.json', '-o', 'dist/millrace.d.ts']
    await this.#do('generate', 'node_modules/.bin/openapi-typescript', ...types)
    await this.#do('type-check', 'node_modules/.bin/tsc', '-p', '.')
    await this.#do('send', process.execPath, 'client.ts', served.told('public'))
    tell('all passed')
    return 0
  }

  async #start(): Promise<RoleProcess> {
    this.#folder = await mkdtemp(join(tmpdir(), 'millrace-openapi-'))
    const [port = 0] = await freePorts(1)
    const { signal } = this.#abort
    const folder = this.#folder
    this.#redis = new RedisServer({ folder, port, fsync: 'everysec', signal })
    await this.#redis.start()
    this.#process = await RoleProcess.launch({
      ...{ name: 'all', role: 'all', signal, logFile: join(folder, 'all.log') },
      flags: ['--redis-url', this.#redis.url, '--port', '0', '--admin-port', '0'],
    })
    return this.#process
  }

  /** Its output is told when it fails, or says something that is worth it. */
  async #do(what: string, ...command: string[]): Promise<void> {
    this.#abort.signal.throwIfAborted()
    const child = Bun.spawn(command, {
      cwd: CLIENT,
      env: {
        ...process.env,
        REDOCLY_TELEMETRY: 'off',
        REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true',
        NO_COLOR: '1',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const [out, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
    if (code !== 0) throw new RunError('failed', `${what} failed:\n${out}${errors}`)
    tell(`${what}: ${what === 'send' ? `\n${out}` : 'passed'}`)
  }

  interrupt(): void {
    this.#abort.abort(new RunError('failed', 'interrupted'))
  }

  async end(): Promise<void> {
    await this.#process?.end()
    await this.#redis?.end()
    if (this.#folder !== '') await rm(this.#folder, { recursive: true, force: true })
  }

  abandon(): void {
    this.#process?.child.kill('SIGKILL')
    this.#redis?.abandon()
  }
}

process.exit(await runToTheEnd(() => new OpenApiCheck(), tell))
