/**
 * A redis-server of our own, for when there is no REDIS_URL.
 *
 * One process owns the data folder and with it the server; others of the same folder are guests and use it.
 *
 *   claim the folder ──got──▶ owner: adopt the server that a killed owner left behind, else launch one
 *         └──taken──▶ role `all`: error; any other role: guest, and owner as soon as the folder is free
 *
 * A server that ends while we run is launched again on the same address, with an alarm. The owner ends its server when it
 * stops: last of all, and only then gives the folder back.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { HealthReport, HealthSource } from '../contracts/health.ts'
import type { Logger } from '../contracts/logger.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { CONNECTION_DEFAULTS, type RedisLink, RedisLinks } from '../redis/connection.ts'
import { readServerInfo } from '../redis/server-check.ts'
import { askToShutDown, setFsync } from '../redis/server-lifecycle.ts'
import type { Clock } from '../runtime/clock.ts'
import { PeriodicService, Service } from '../runtime/service.ts'
import { FolderClaim, readOwner } from './folder-claim.ts'
import {
  chooseAddress,
  findProgram,
  findServerProcess,
  isServerRunning,
  lastWords,
  launchServer,
  moveAddress,
  noteAddress,
  openServerFolder,
  readAddress,
  type ServerAddress,
  type ServerFolder,
} from './redis-child.ts'

export interface ManagedRedisOptions {
  readonly dataFolder: string
  readonly program: string | undefined
  readonly durability: 'everysec' | 'fsync'
  readonly role: string
  /** False: a folder that somebody else owns is an error. */
  readonly mayJoin: boolean
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly logger: Logger
}

/** A server that loads much data may take long; one that says nothing is given up sooner. */
const LOAD_LIMIT_MS = 600_000
const ADOPT_LIMIT_MS = 60_000
const JOIN_LIMIT_MS = 60_000
const ANSWER_LIMIT_MS = 2000
const SHUTDOWN_LIMIT_MS = 10_000
const TERMINATE_LIMIT_MS = 5000
const LOOK_MS = 500
const EARLY_DEATH_MS = 10_000
const RELAUNCH_PAUSE_MAX_MS = 10_000
const PORT_ATTEMPTS_MAX = 3

const SILENT: Telemetry = { emit: () => undefined }

export class ManagedRedis extends Service implements HealthSource {
  readonly #options: ManagedRedisOptions
  readonly #watch: PeriodicService
  #folder: ServerFolder | undefined
  #claim: FolderClaim | undefined
  #address: ServerAddress | undefined
  #pid: number | undefined
  #launchedAtMs = 0
  #earlyDeaths = 0

  constructor(options: ManagedRedisOptions) {
    super('managed-redis')
    this.#options = options
    const { clock, telemetry } = options
    this.#watch = new PeriodicService(
      { name: 'managed-redis-watch', clock, telemetry, pauseMinMs: 10, pauseMaxMs: LOOK_MS },
      () => this.#look(),
    )
  }

  /** Fit for REDIS_URL; known once started, and the same as long as this process lives. */
  get url(): string {
    if (this.#address !== undefined) return this.#address.url
    throw new MillraceError('service.stopped', 'The managed Redis has not started.')
  }

  get standing(): 'owner' | 'guest' {
    return this.#claim === undefined ? 'guest' : 'owner'
  }

  /** The server's process id, while this process owns it. */
  get pid(): number | undefined {
    return this.#pid
  }

  health(): HealthReport {
    if (this.#claim === undefined)
      return { ready: true, detail: 'joined the redis-server of another process' }
    if (this.#pid !== undefined) return { ready: true, detail: `owns redis-server ${this.#pid}` }
    return { ready: false, detail: 'redis-server ended and is being launched again' }
  }

  /** For an exit that waits for nothing: the server still writes everything before it ends. */
  terminate(): void {
    if (this.#claim !== undefined && this.#pid !== undefined) signal(this.#pid, 'SIGTERM')
  }

  protected override async onStart(): Promise<void> {
    const folder = openServerFolder(this.#options.dataFolder)
    this.#folder = folder
    const startedAtMs = this.#options.clock.monotonicMs()
    while (!this.#take(folder)) {
      if (!this.#options.mayJoin) throw owned(folder)
      if (await this.#join(folder)) break
      if (this.#options.clock.monotonicMs() - startedAtMs > JOIN_LIMIT_MS) throw unanswered(folder)
      await this.#options.clock.sleep(100, this.stopSignal)
      if (this.stopSignal.aborted) throw stoppedAtStart()
    }
    if (this.#claim !== undefined) await this.#own(folder)
    await this.#watch.start()
  }

  protected override async onStop(): Promise<void> {
    await this.#watch.stop()
    if (this.#claim === undefined) return
    try {
      await this.#endServer()
    } finally {
      this.#claim.release()
      this.#claim = undefined
    }
  }

  #take(folder: ServerFolder): boolean {
    this.#claim ??= FolderClaim.take(folder.path, { pid: process.pid, role: this.#options.role })
    return this.#claim !== undefined
  }

  // ── guest ──

  async #join(folder: ServerFolder): Promise<boolean> {
    const address = readAddress(folder)
    if (address === undefined) return false
    try {
      const info = await this.#ask(address, (link) => readServerInfo(link))
      if (info.configFile !== folder.configFile) return false
    } catch {
      return false
    }
    this.#address = address
    return true
  }

  // ── owner ──

  async #own(folder: ServerFolder): Promise<void> {
    const orphan = findServerProcess(folder)
    if (orphan !== undefined && (await this.#adopt(folder, orphan))) return
    await this.#launch(folder)
  }

  /** False when it was about to end, and has. */
  async #adopt(folder: ServerFolder, pid: number): Promise<boolean> {
    const address = readAddress(folder) ?? chooseAddress(folder)
    try {
      await this.#untilReady(folder, address, pid, ADOPT_LIMIT_MS)
    } catch (error) {
      if (isServerRunning(folder, pid) || this.stopSignal.aborted) throw error
      return false
    }
    await this.#ask(address, async (link) => {
      const info = await readServerInfo(link)
      if (info.configFile !== folder.configFile) throw foreign(folder, address)
      await setFsync(link, this.#options.durability)
    })
    this.#address = address
    this.#pid = pid
    this.#launchedAtMs = this.#options.clock.monotonicMs()
    this.#options.logger.info(
      { serverPid: pid },
      'adopted the redis-server that an earlier owner left running',
    )
    return true
  }

  /** Launches on the address that clients already use, if there is one. */
  async #launch(folder: ServerFolder): Promise<void> {
    const { program, durability, clock } = this.#options
    const file = findProgram(program)
    let address = this.#address ?? chooseAddress(folder)
    for (let attempt = 1; ; attempt++) {
      const child = launchServer({ folder, address, program: file, durability })
      this.#pid = child.pid
      this.#launchedAtMs = clock.monotonicMs()
      const ended = new AbortController()
      void child.exited.then(() => {
        ended.abort()
        if (this.#pid === child.pid) this.#pid = undefined
        this.#watch.wake()
      })
      try {
        await this.#untilReady(folder, address, child.pid, LOAD_LIMIT_MS, ended.signal)
        break
      } catch (error) {
        const words = lastWords(folder)
        const portTaken = 'port' in address.listen && /in use/i.test(words)
        if (!portTaken || this.#address !== undefined || attempt === PORT_ATTEMPTS_MAX) throw error
        address = moveAddress(address)
      }
    }
    this.#address = address
  }

  /** Runs twice a second: is our server alive, or, for a guest, is the folder free? */
  async #look(): Promise<number> {
    const folder = this.#folder
    if (folder === undefined) return LOOK_MS
    if (this.#claim === undefined) {
      if (!this.#take(folder)) return LOOK_MS
      this.#options.logger.info({ folder: folder.path }, 'the owner of the data folder is gone; taking over')
      await this.#own(folder)
      noteAddress(folder, this.#address ?? chooseAddress(folder))
      return LOOK_MS
    }
    if (this.#pid !== undefined && isServerRunning(folder, this.#pid)) return LOOK_MS
    await this.#relaunch(folder)
    return LOOK_MS
  }

  async #relaunch(folder: ServerFolder): Promise<void> {
    this.#pid = undefined
    const { clock, telemetry, logger } = this.#options
    const livedMs = clock.monotonicMs() - this.#launchedAtMs
    this.#earlyDeaths = livedMs < EARLY_DEATH_MS ? this.#earlyDeaths + 1 : 0
    telemetry.emit('alarm.raised', {
      alarm: 'redis-server-ended',
      stream: undefined,
      detail: `redis-server ended after ${Math.round(livedMs / 1000)} s and is launched again: ${lastWords(folder)}`,
    })
    if (this.#earlyDeaths > 0) {
      await clock.sleep(Math.min(RELAUNCH_PAUSE_MAX_MS, 100 * 2 ** this.#earlyDeaths), this.stopSignal)
    }
    if (this.stopSignal.aborted) return
    await this.#own(folder)
    logger.info({ serverPid: this.#pid }, 'redis-server runs again')
  }

  async #endServer(): Promise<void> {
    const [folder, pid, address] = [this.#folder, this.#pid, this.#address]
    if (folder === undefined || pid === undefined) return
    if (address !== undefined) {
      const links = this.#controlLinks(address)
      try {
        const link = links.open('command')
        await link.whenReady(ANSWER_LIMIT_MS)
        askToShutDown(link)
        if (await this.#untilGone(folder, pid, SHUTDOWN_LIMIT_MS)) return
      } catch {
        // It does not answer; a signal still reaches it.
      } finally {
        links.closeAll()
      }
    }
    signal(pid, 'SIGTERM')
    if (await this.#untilGone(folder, pid, TERMINATE_LIMIT_MS)) return
    signal(pid, 'SIGKILL')
    this.#options.telemetry.emit('alarm.raised', {
      alarm: 'redis-server-killed',
      stream: undefined,
      detail: `redis-server ${pid} did not end when asked to and was killed; what it had not yet written may be lost.`,
    })
    await this.#untilGone(folder, pid, TERMINATE_LIMIT_MS)
  }

  // ── waiting and asking ──

  async #untilReady(
    folder: ServerFolder,
    address: ServerAddress,
    pid: number,
    limitMs: number,
    ended?: AbortSignal,
  ): Promise<void> {
    const { clock, logger } = this.#options
    const endMs = clock.monotonicMs() + limitMs
    for (let round = 1; clock.monotonicMs() < endMs; round++) {
      if (this.stopSignal.aborted) throw stoppedAtStart()
      if (!isServerRunning(folder, pid)) throw endedAtStart(folder)
      try {
        return await this.#ask(address, async () => undefined, ended)
      } catch {
        if (round % 5 === 0) logger.info({ serverPid: pid }, 'waiting for redis-server to load its data')
      }
    }
    throw new MillraceError(
      'redis.unavailable',
      `redis-server ${pid} of ${folder.path} does not answer. See ${folder.logFile}; end it with \`kill ${pid}\` and start again.`,
    )
  }

  async #untilGone(folder: ServerFolder, pid: number, limitMs: number): Promise<boolean> {
    const { clock } = this.#options
    const endMs = clock.monotonicMs() + limitMs
    while (isServerRunning(folder, pid)) {
      if (clock.monotonicMs() > endMs) return false
      await clock.sleep(10)
    }
    return true
  }

  async #ask<Answer>(
    address: ServerAddress,
    question: (link: RedisLink) => Promise<Answer>,
    ended?: AbortSignal,
  ): Promise<Answer> {
    const links = this.#controlLinks(address)
    const signals = ended === undefined ? [this.stopSignal] : [this.stopSignal, ended]
    try {
      const link = links.open('command')
      await link.whenReady(ANSWER_LIMIT_MS, AbortSignal.any(signals))
      return await question(link)
    } finally {
      links.closeAll()
    }
  }

  #controlLinks(address: ServerAddress): RedisLinks {
    const { clock } = this.#options
    return new RedisLinks({
      address: { url: address.url },
      telemetry: SILENT,
      random: () => clock.random(),
      ...CONNECTION_DEFAULTS,
    })
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It ended meanwhile.
  }
}

function stoppedAtStart(): MillraceError {
  return new MillraceError('service.stopped', 'Stopped while starting.')
}

function owned(folder: ServerFolder): MillraceError {
  const owner = readOwner(folder.path)
  const who = owner === undefined ? 'another process' : `process ${owner.pid} (role ${owner.role})`
  return new MillraceError(
    'folder.owned',
    `The data folder ${folder.path} is in use by ${who}. Stop that one, set MILLRACE_DATA_DIR to another folder, or start a single role (api, work, project, schedule), which joins it.`,
  )
}

function unanswered(folder: ServerFolder): MillraceError {
  const owner = readOwner(folder.path)
  return new MillraceError(
    'redis.unavailable',
    `The data folder ${folder.path} is owned by process ${owner?.pid ?? 'unknown'}, whose redis-server does not answer. See ${folder.logFile}.`,
  )
}

function foreign(folder: ServerFolder, address: ServerAddress): MillraceError {
  const where = 'socket' in address.listen ? address.listen.socket : `port ${address.listen.port}`
  return new MillraceError(
    'config.invalid',
    `Another server than the one of ${folder.path} answers on ${where}. End it, or set MILLRACE_DATA_DIR to another folder.`,
  )
}

function endedAtStart(folder: ServerFolder): MillraceError {
  return new MillraceError(
    'config.invalid',
    `redis-server ended at start: ${lastWords(folder) || 'it said nothing'}. Its log is ${folder.logFile}.`,
  )
}
