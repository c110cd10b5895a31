/** Start order, stop order, limits, and what a person says twice. */
import { expect, test } from 'bun:test'
import { MillraceError } from '../src/contracts/errors.ts'
import { Service } from '../src/runtime/service.ts'
import { listenForStop, type SignalSource, type StopSignal } from '../src/runtime/stop-signals.ts'
import { Supervisor } from '../src/runtime/supervisor.ts'
import { FakeClock, RecordedTelemetry } from '../src/testing.ts'
import { rejection } from './support/rejection.ts'

class Part extends Service {
  readonly #told: string[]
  readonly #behaviour: { fails?: 'start' | 'stop'; stopsAfter?: Promise<void> }

  constructor(
    name: string,
    told: string[],
    behaviour: { fails?: 'start' | 'stop'; stopsAfter?: Promise<void> } = {},
  ) {
    super(name)
    this.#told = told
    this.#behaviour = behaviour
  }

  protected override async onStart(): Promise<void> {
    this.#told.push(`+${this.name}`)
    if (this.#behaviour.fails === 'start') throw new MillraceError('config.invalid', 'no')
  }

  protected override async onStop(): Promise<void> {
    await this.#behaviour.stopsAfter
    this.#told.push(`-${this.name}`)
    if (this.#behaviour.fails === 'stop') throw new Error('stuck')
  }
}

const never = new Promise<void>(() => undefined)

function setUp(): { supervisor: Supervisor; clock: FakeClock; telemetry: RecordedTelemetry; told: string[] } {
  const [clock, telemetry] = [new FakeClock(), new RecordedTelemetry()]
  return { supervisor: new Supervisor({ clock, telemetry, drainLimitMs: 1000 }), clock, telemetry, told: [] }
}

test('services start in order and stop in reverse', async () => {
  const { supervisor, told } = setUp()
  await supervisor.start()
  for (const name of ['a', 'b', 'c']) await supervisor.run(new Part(name, told))
  await Promise.all([supervisor.stop(), supervisor.stop()])
  expect(told).toEqual(['+a', '+b', '+c', '-c', '-b', '-a'])
  expect(supervisor.endedCleanly).toBe(true)
})

test('one that fails to start is stopped too, with all before it', async () => {
  const { supervisor, told } = setUp()
  await supervisor.start()
  await supervisor.run(new Part('a', told))
  expect((await rejection(supervisor.run(new Part('b', told, { fails: 'start' })))).message).toBe('no')
  await supervisor.stop()
  expect(told).toEqual(['+a', '+b', '-b', '-a'])
})

test('one that does not stop in time is left behind with an alarm, and the rest still stops', async () => {
  const { supervisor, clock, telemetry, told } = setUp()
  await supervisor.start()
  await supervisor.run(new Part('a', told), { stopLimitMs: 5000 })
  await supervisor.run(new Part('b', told, { stopsAfter: never }))
  await supervisor.run(new Part('c', told, { fails: 'stop' }))
  const stopped = supervisor.stop()
  await clock.advance(1000)
  await stopped
  expect(told).toEqual(['+a', '+b', '+c', '-c', '-a'])
  expect(supervisor.endedCleanly).toBe(false)
  expect(telemetry.of('alarm.raised').map(({ detail }) => detail)).toEqual([
    expect.stringContaining('c failed to stop: Error: stuck'),
    expect.stringContaining('b did not stop within 1000 ms and is left behind'),
  ])
})

test('nothing starts any more once a stop was asked for', async () => {
  const { supervisor, told } = setUp()
  await supervisor.start()
  const stopped = supervisor.stop()
  expect(await rejection(supervisor.run(new Part('late', told)))).toMatchObject({ code: 'service.stopped' })
  await stopped
  expect(told).toEqual([])
})

class Signals implements SignalSource {
  readonly listeners = new Map<StopSignal, () => void>()
  on(signal: StopSignal, listener: () => void): void {
    this.listeners.set(signal, listener)
  }
  off(signal: StopSignal): void {
    this.listeners.delete(signal)
  }
  say(signal: StopSignal): void {
    this.listeners.get(signal)?.()
  }
}

test('the first signal stops, its echo is not heard, the second one abandons with the code of its name', async () => {
  const [signals, clock, told] = [new Signals(), new FakeClock(), [] as unknown[]]
  const off = listenForStop(signals, clock, {
    onStop: (signal) => told.push(signal),
    onAbandon: (exitCode) => told.push(exitCode),
  })
  signals.say('SIGTERM')
  await clock.advance(100)
  signals.say('SIGTERM')
  expect(told).toEqual(['SIGTERM'])
  await clock.advance(1000)
  signals.say('SIGINT')
  expect(told).toEqual(['SIGTERM', 130])
  off()
  expect(signals.listeners.size).toBe(0)
})
