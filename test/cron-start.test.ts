/** Mistakes in schedules are told when a process starts, by every role, before it looks for a Redis. */
import { expect, test } from 'bun:test'
import { defineCommand, defineSchedule, type ScheduleDefinition, startMillrace } from 'millrace'
import { z } from 'zod'
import { rejection } from './support/rejection.ts'

const report = defineCommand({
  type: 'report.send',
  payload: z.object({ to: z.string() }),
  key: ({ to }) => to.padEnd(to === 'everybody' ? 300 : 1),
})
const payload = { to: 'me' }
const name = 'weekly'

const mistakes: [ScheduleDefinition, RegExp][] = [
  [
    defineSchedule({ name, command: report, payload, cron: '0 0 9 * * MON' }),
    /^Schedule "weekly": "0 0 9 \* \* MON" has six fields; use five/,
  ],
  [
    defineSchedule({ name, command: report, payload, cron: '0 9 * * MON', timeZone: 'Europe/Brlin' }),
    /there is no time zone "Europe\/Brlin". Did you mean "Europe\/Berlin"\?/,
  ],
  [
    defineSchedule({ name, command: report, payload: { to: 7 as unknown as string }, every: 1000 }),
    /^The payload of schedule "weekly" is invalid: #\/to .*command "report\.send"/,
  ],
  [
    defineSchedule({ name, command: report, payload: { to: 'everybody' }, every: 1000 }),
    /^The key of "report\.send" for schedule "weekly"/,
  ],
]

test('every role refuses a schedule that could not fire', async () => {
  for (const role of ['all', 'api', 'work', 'project', 'schedule'] as const) {
    for (const [schedule, says] of mistakes) {
      const redisUrl = 'redis://127.0.0.1:1'
      const refused = startMillrace({
        role,
        redisUrl,
        port: 0,
        adminPort: 0,
        definitions: [report, schedule],
      })
      expect(await rejection(refused)).toMatchObject({
        code: 'definition.invalid',
        message: expect.stringMatching(says),
      })
    }
  }
})
