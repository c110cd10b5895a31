/** A run of the fuzzer: cases in order over a few lanes, Redis full for some of them, and the account at the end. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RunError } from '../fleet/failure.ts'
import { number, Progress, tellAs } from '../fleet/progress.ts'
import { REDIS_SERVER } from '../fleet/redis-server.ts'
import { Account } from './account.ts'
import { type FuzzCase, makeCase } from './cases.ts'
import { isWhole } from './hostile-request.ts'
import type { FuzzOptions } from './options.ts'
import { type Fault, Oracle } from './oracle.ts'
import { judgeProcess } from './process-marks.ts'
import { classOf, UNREACHABLE } from './routes.ts'
import { Sender } from './sender.ts'
import { reproduction, shrunk } from './shrink.ts'
import { Tally } from './tally.ts'
import type { WireAnswer } from './wire.ts'
import { World } from './world.ts'

const LANES = 24
/** From so many cases on, every class of answer must have been seen. */
const FULL_RUN_CASES = 30_000
const FAULTS_MAX = 20
/** Of the cases: before memory is first looked at. */
const WARM_SHARE = 0.1
const DEBUG_CASES_MAX = 5000

interface Found extends Fault {
  readonly index: number
}

export class Fuzz {
  readonly #options: FuzzOptions
  readonly #abort = new AbortController()
  readonly #folder: string = mkdtempSync(join(tmpdir(), 'millrace-fuzz-'))
  readonly #world: World
  readonly #oracle: Oracle
  readonly #account = new Account()
  readonly #tally = new Tally()
  readonly #found: Found[] = []
  readonly #progress: Progress = new Progress('fuzz', () => ({
    share: this.#sent / this.#options.cases,
    parts: [`${number(this.#sent)} of ${number(this.#options.cases)} cases`, `${this.#found.length} faults`],
  }))
  #sent = 0

  constructor(options: FuzzOptions) {
    this.#options = options
    this.#world = new World({
      folder: this.#folder,
      signal: this.#abort.signal,
      logLevel: options.cases <= DEBUG_CASES_MAX ? 'debug' : 'info',
    })
    this.#oracle = new Oracle([this.#world.secret])
  }

  interrupt(): void {
    this.#abort.abort(new RunError('interrupted', 'interrupted'))
  }

  abandon(): void {
    this.#world.abandon()
  }

  async end(): Promise<void> {
    this.#progress.stop()
    await this.#world.close()
    if (this.#options.keep) tell(`data and logs are in ${this.#folder}`)
    else rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Answers the exit code. */
  async run(): Promise<number> {
    const { cases, seed, only } = this.#options
    if (Bun.which(REDIS_SERVER) === null) throw new RunError('unavailable', `There is no ${REDIS_SERVER}.`)
    tell(`seed ${seed}, ${number(cases)} cases`)
    await this.#world.open()
    await this.#account.open(this.#world.redis)
    if (only !== undefined) return await this.#runOne(only)
    const startMs = performance.now()
    this.#progress.start()
    const warm = Math.ceil(cases * WARM_SHARE)
    const middle = Math.floor(cases / 2)
    const pressedTo = middle + Math.ceil(cases / 100)
    await this.#segment(0, warm)
    const warmBytes = this.#world.residentBytes()
    await this.#segment(warm, middle)
    await this.#press(true)
    await this.#segment(middle, pressedTo)
    await this.#press(false)
    await this.#segment(pressedTo, cases)
    this.#progress.stop()
    const seconds = (performance.now() - startMs) / 1000
    return await this.#conclude(seconds, warmBytes)
  }

  async #press(isFull: boolean): Promise<void> {
    this.#oracle.isPressed = true
    for (const id of await this.#world.press(isFull)) this.#account.accept(id)
    this.#oracle.isPressed = isFull
  }

  async #segment(from: number, to: number): Promise<void> {
    let next = from
    const lane = async (): Promise<void> => {
      const sender = new Sender(this.#world.ground)
      try {
        while (next < to && this.#found.length < FAULTS_MAX && this.#world.api.alive) {
          this.#abort.signal.throwIfAborted()
          const index = next
          next += 1
          await this.#play(makeCase(this.#options.seed, index, this.#world.ground), sender)
          this.#sent += 1
        }
      } finally {
        sender.close()
      }
    }
    await Promise.all(Array.from({ length: LANES }, lane))
  }

  async #play(given: FuzzCase, sender: Sender): Promise<void> {
    const { resent } = sender
    const answers = await sender.send(given)
    if (sender.resent > resent) this.#account.loseSight(given.index)
    this.#record(given, answers)
    const fault = this.#faultOf(given, answers)
    if (fault !== undefined) this.#found.push({ ...fault, index: given.index })
  }

  #record(given: FuzzCase, answers: readonly WireAnswer[]): void {
    if (answers.length === 0) this.#tally.add(given, 'cut')
    for (const answer of answers) this.#tally.add(given, classOf(answer.status))
    if (!isWhole(given.request) || answers.some(isSilentOnIds)) this.#account.loseSight(given.index)
    if (given.route.listener !== 'public') return
    for (const answer of answers)
      for (const { id, isCancelled } of idsIn(answer)) {
        if (isCancelled) this.#account.cancel(id)
        else this.#account.accept(id)
      }
  }

  #faultOf(given: FuzzCase, answers: readonly WireAnswer[]): Fault | undefined {
    if (answers.length === 0) return this.#oracle.silence(given)
    for (const answer of answers) {
      const fault = this.#oracle.judge(given, answer)
      if (fault !== undefined) return fault
    }
    return undefined
  }

  async #conclude(seconds: number, warmBytes: number): Promise<number> {
    const { cases, seed, json } = this.#options
    const process = await judgeProcess(this.#world, { warmBytes, problemTypes: this.#oracle.problemTypes })
    const { storedCount, faults } = await this.#account.compare(this.#world.redis)
    for (const line of this.#tally.lines()) tell(line)
    const missing = this.#tally.missing()
    for (const sentence of missing) tell(`not seen: ${sentence}`)
    for (const sentence of UNREACHABLE) tell(`can not be seen: ${sentence}`)
    const broken = [...process.faults, ...faults.slice(0, FAULTS_MAX)]
    if (cases >= FULL_RUN_CASES)
      for (const detail of missing) broken.push({ rule: 'every class of answer', detail })
    for (const { rule, detail } of broken) tell(`BROKEN: ${rule}: ${detail}`)
    await this.#explain()
    const count = broken.length + this.#found.length
    tell(
      `${number(this.#sent)} cases in ${seconds.toFixed(0)} s (${number(this.#sent / seconds)}/s), ${number(this.#account.acceptedCount)} accepted, ${number(storedCount)} stored, memory ${process.growthMiB.toFixed(0)} MiB more than after a tenth, ${process.series} series, ${number(process.lines)} log lines: ${count === 0 ? 'all held' : `${count} faults (seed ${seed})`}`,
    )
    if (json !== undefined) {
      const result = {
        seed,
        cases: this.#sent,
        seconds,
        faults: [...broken, ...this.#found],
        cells: this.#tally.cells,
      }
      await Bun.write(json === '-' ? Bun.stdout : json, `${JSON.stringify(result)}\n`)
    }
    return count === 0 ? 0 : 1
  }

  /** One case of each broken rule, made small. */
  async #explain(): Promise<void> {
    const { seed } = this.#options
    const { ground } = this.#world
    const byRule = new Map(this.#found.toReversed().map((found) => [found.rule, found]))
    for (const { rule, detail, index } of byRule.values()) {
      const given = makeCase(seed, index, ground)
      const fails = async (request: FuzzCase['request']): Promise<boolean> => {
        const sender = new Sender(ground)
        const smaller = { ...given, request }
        const fault = this.#faultOf(smaller, await sender.send(smaller).catch(() => []))
        sender.close()
        return fault?.rule === rule
      }
      const small = this.#world.api.alive ? await shrunk(given.request, fails) : given.request
      tell(`BROKEN: ${rule}: ${detail}`)
      const port = given.route.listener === 'public' ? ground.publicPort : ground.adminPort
      tell(`  bun run fuzz --seed ${seed} --case ${index} (${given.kind}), as small as it gets:`)
      tell(`  ${reproduction(small, port)}`)
    }
  }

  async #runOne(index: number): Promise<number> {
    const given = makeCase(this.#options.seed, index, this.#world.ground)
    const sender = new Sender(this.#world.ground)
    const answers = await sender.send(given)
    sender.close()
    tell(
      reproduction(
        given.request,
        given.route.listener === 'public' ? this.#world.ground.publicPort : this.#world.ground.adminPort,
      ),
    )
    for (const { status, headers, body } of answers)
      tell(`${status} ${JSON.stringify([...headers])} ${body.toString('utf8').slice(0, 2000)}`)
    const fault = this.#faultOf(given, answers)
    tell(fault === undefined ? 'it holds' : `BROKEN: ${fault.rule}: ${fault.detail}`)
    return fault === undefined ? 0 : 1
  }
}

/** What a public answer says was taken in, or taken back. */
function idsIn({
  status,
  headers,
  body,
}: WireAnswer): { readonly id: string; readonly isCancelled: boolean }[] {
  if (status !== 202 && status !== 200) return []
  const located = /^\/v1\/commands\/(.+)$/.exec(headers.get('location') ?? '')?.[1]
  const text = body.toString('utf8')
  const isCancelled = text.includes('"status":"cancelled"')
  if (located !== undefined) return [{ id: located, isCancelled }]
  if (status !== 202 || !text.startsWith('{"accepted"')) return []
  const { results = [] } = JSON.parse(text) as { readonly results?: readonly { readonly id?: string }[] }
  return results.flatMap(({ id }) => (id === undefined ? [] : [{ id, isCancelled: false }]))
}

/** An answer after which commands may be stored that it does not name: on request it names none, or it says that it does not know. */
function isSilentOnIds({ status, body }: WireAnswer): boolean {
  return status === 503 || (status === 202 && body.includes('"accepted"') && !body.includes('"results"'))
}

export function tell(line: string): void {
  tellAs('fuzz', line)
}
