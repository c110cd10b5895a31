/** What becomes a line in the log, and how often. */
import { expect, test } from 'bun:test'
import { logTelemetry } from '../src/host/telemetry-log.ts'
import { FakeClock } from '../src/testing.ts'

function recorded(clock: FakeClock) {
  const lines: { level: string; fields: Record<string, unknown> }[] = []
  const at = (level: string) => (fields: object) => void lines.push({ level, fields: { ...fields } })
  const logger = {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    isLevelEnabled: () => true,
  }
  return { lines, listen: logTelemetry(logger, clock) }
}

test('a service that fails again and again says so twice a minute, and how often it went unsaid', async () => {
  const clock = new FakeClock()
  const { lines, listen } = recorded(clock)
  for (let i = 0; i < 600; i++) {
    listen('service.failed', { service: 'settler', error: 'Redis is away' })
    if (i % 2 === 0) listen('service.failed', { service: 'promoter', error: 'Redis is away' })
    await clock.advance(100)
  }
  const settler = lines.filter((line) => line.fields['service'] === 'settler')
  expect(settler.map((line) => line.fields['unsaid'] ?? 0)).toEqual([0, 299])
  expect(lines.filter((line) => line.fields['service'] === 'promoter')).toHaveLength(2)
})

test('alarms are errors, each of them', () => {
  const { lines, listen } = recorded(new FakeClock())
  for (let i = 0; i < 3; i++)
    listen('alarm.raised', { alarm: 'entries-lost', stream: 'orders', detail: 'gone' })
  expect(lines.map((line) => line.level)).toEqual(['error', 'error', 'error'])
})
