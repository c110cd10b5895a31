/**
 * Slow clients: a thousand connections that send heads and bodies byte by byte, keep silent, or do not read their answers; those
 * that are closed come back at once. Meanwhile honest requests go on at a steady pace, and must not take twice as long as without.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Socket } from 'bun'
import { RunError } from '../fleet/failure.ts'
import { number, tellAs } from '../fleet/progress.ts'
import type { FuzzOptions } from './options.ts'
import { Wire } from './wire.ts'
import { World } from './world.ts'

const LANES = 16
const PACE_MS = 32
const WARM_MS = 3000
const SLICE_MS = 10
/** Each connection sends one byte in so long. */
const TRICKLE_MS = 1000
const RATIO_MAX = 2
/** Below this a ratio says nothing on a machine with other things to do. */
const FLOOR_MS = 5
const REST_MS = 20

const head = (line: string, more: string): string => `${line} HTTP/1.1\r\nHost: 127.0.0.1\r\n${more}`
const JSON_LINE = 'Content-Type: application/json\r\n'

interface SlowKind {
  readonly name: string
  /** Sent at once. */
  readonly opening: string
  /** Sent from then on; undefined: nothing. */
  readonly trickle: string | undefined
  readonly isDeaf?: boolean
}

const KINDS: readonly SlowKind[] = [
  { name: 'slow heads', opening: head('GET /livez', ''), trickle: 'X-A: b\r\n' },
  {
    name: 'slow bodies',
    opening: head('POST /v1/commands', `${JSON_LINE}Content-Length: 8000000\r\n\r\n[`),
    trickle: ' ',
  },
  {
    name: 'slow chunks',
    opening: head('POST /v1/commands', `${JSON_LINE}Transfer-Encoding: chunked\r\n\r\n`),
    trickle: '1\r\n \r\n',
  },
  { name: 'silent', opening: '', trickle: undefined },
  {
    name: 'deaf readers',
    opening: head('GET /v1/views/counts?limit=500', '\r\n').repeat(50),
    trickle: undefined,
    isDeaf: true,
  },
]

interface Measured {
  readonly p50: number
  readonly p99: number
  readonly answers: number
  readonly refused: number
}

export class SlowClients {
  readonly #options: FuzzOptions
  readonly #abort = new AbortController()
  readonly #folder: string = mkdtempSync(join(tmpdir(), 'millrace-slow-'))
  readonly #world: World
  readonly #open = new Set<SlowConnection>()
  #trickle: ReturnType<typeof setInterval> | undefined

  constructor(options: FuzzOptions) {
    this.#options = options
    this.#world = new World({ folder: this.#folder, signal: this.#abort.signal, logLevel: 'info' })
  }

  interrupt(): void {
    this.#abort.abort(new RunError('interrupted', 'interrupted'))
  }

  abandon(): void {
    this.#world.abandon()
  }

  async end(): Promise<void> {
    clearInterval(this.#trickle)
    for (const connection of this.#open) connection.close()
    await this.#world.close()
    if (!this.#options.keep) rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Answers the exit code. */
  async run(): Promise<number> {
    const { connections, json } = this.#options
    await this.#world.open()
    await this.#honest(WARM_MS)
    const before = await this.#measure('without slow clients')
    const bytesBefore = this.#world.residentBytes()
    await this.#hold(connections)
    const during = await this.#measure(`with ${number(connections)}`)
    const opened = [...this.#open].reduce((sum, { openings }) => sum + openings, 0)
    const growthMiB = (this.#world.residentBytes() - bytesBefore) / 1024 ** 2
    const ratio = during.p99 / Math.max(FLOOR_MS, before.p99)
    const holds = ratio < RATIO_MAX && during.refused === 0 && this.#world.api.alive
    tell(
      `${number(opened)} connections opened for ${number(connections)} held, memory ${growthMiB.toFixed(0)} MiB more; p99 is ${(during.p99 / before.p99).toFixed(2)} times what it was, ${during.refused} honest requests refused: ${holds ? 'holds' : 'BROKEN'}`,
    )
    if (json !== undefined) {
      const result = { connections, before, during, opened, growthMiB, holds }
      await Bun.write(json === '-' ? Bun.stdout : json, `${JSON.stringify(result)}\n`)
    }
    return holds ? 0 : 1
  }

  async #measure(what: string): Promise<Measured> {
    const measured = await this.#honest(this.#options.seconds * 1000)
    tell(
      `${what}: p50 ${measured.p50.toFixed(1)} ms, p99 ${measured.p99.toFixed(1)} ms over ${number(measured.answers)} answers, ${measured.refused} refused`,
    )
    return measured
  }

  async #honest(durationMs: number): Promise<Measured> {
    const times: number[] = []
    let refused = 0
    const endMs = performance.now() + durationMs
    const lane = async (place: number): Promise<void> => {
      let wire = await Wire.open(this.#world.ground.publicPort)
      await Bun.sleep((place * PACE_MS) / LANES)
      for (let n = 0; performance.now() < endMs; n++) {
        this.#abort.signal.throwIfAborted()
        const startMs = performance.now()
        if (wire.isClosed) wire = await Wire.open(this.#world.ground.publicPort)
        wire.send(n % 2 === 0 ? honestCommand(n) : Buffer.from(head('GET /v1/views/counts/view-1', '\r\n')))
        const answer = await wire.answer(30_000)
        times.push(performance.now() - startMs)
        if (answer === undefined || answer.status >= 300) refused += 1
        await Bun.sleep(Math.max(0, PACE_MS - (performance.now() - startMs)))
      }
      wire.close()
    }
    await Promise.all(Array.from({ length: LANES }, (_, place) => lane(place)))
    times.sort((a, b) => a - b)
    const at = (share: number): number => times[Math.floor(times.length * share)] ?? 0
    return { p50: at(0.5), p99: at(0.99), answers: times.length, refused }
  }

  async #hold(count: number): Promise<void> {
    const { publicPort } = this.#world.ground
    for (let i = 0; i < count; i++) {
      const kind = KINDS[i % KINDS.length] as SlowKind
      this.#open.add(new SlowConnection(publicPort, kind))
      if (i % 50 === 49) await Bun.sleep(REST_MS)
    }
    const all = [...this.#open]
    let at = 0
    const share = Math.ceil((all.length * SLICE_MS) / TRICKLE_MS)
    this.#trickle = setInterval(() => {
      for (let i = 0; i < share; i++) all[at++ % all.length]?.step()
    }, SLICE_MS)
    await Bun.sleep(TRICKLE_MS)
  }
}

/** One slow client; when it is closed it comes back with its next step. */
class SlowConnection {
  openings = 0
  readonly #port: number
  readonly #kind: SlowKind
  #socket: Socket | undefined
  #isOver = false
  #isOpening = false

  constructor(port: number, kind: SlowKind) {
    this.#port = port
    this.#kind = kind
    this.step()
  }

  step(): void {
    const { trickle } = this.#kind
    if (this.#socket !== undefined) {
      if (trickle !== undefined) this.#socket.write(trickle)
      return
    }
    if (this.#isOver || this.#isOpening) return
    this.#isOpening = true
    this.openings += 1
    const gone = (): void => {
      this.#socket = undefined
      this.#isOpening = false
    }
    Bun.connect({
      hostname: '127.0.0.1',
      port: this.#port,
      socket: {
        open: (socket) => {
          this.#isOpening = false
          this.#socket = socket
          socket.write(this.#kind.opening)
          if (this.#kind.isDeaf === true) socket.pause()
        },
        data: () => undefined,
        close: gone,
        end: gone,
        error: gone,
      },
    }).catch(gone)
  }

  close(): void {
    this.#isOver = true
    this.#socket?.terminate()
  }
}

function honestCommand(n: number): Buffer {
  const body = JSON.stringify({ mark: `h${n}` })
  return Buffer.from(
    `${head('POST /v1/commands/kept.note', JSON_LINE)}Content-Length: ${body.length}\r\n\r\n${body}`,
  )
}

function tell(line: string): void {
  tellAs('fuzz slow', line)
}
