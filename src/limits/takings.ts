/**
 * Tokens of several limits at once: a request takes from all of them or from none.
 */
import type { Claim } from './rate-limiter.ts'

/**
 * Takes `wanted` tokens of each. Answers the claim that refused, or undefined; a promise only when Redis must be asked.
 */
export function takeAll(
  claims: readonly Claim[],
  wanted: number,
): Claim | undefined | Promise<Claim | undefined> {
  for (let i = 0; i < claims.length; i++) {
    const claim = claims[i] as Claim
    const taken = claim.allotment.take(wanted, wanted)
    if (typeof taken !== 'number') return takeRest(claims, i, taken, wanted)
    if (taken < wanted) return refusedAt(claims, i, wanted)
  }
  return undefined
}

async function takeRest(
  claims: readonly Claim[],
  at: number,
  taking: Promise<number>,
  wanted: number,
): Promise<Claim | undefined> {
  if ((await taking) < wanted) return refusedAt(claims, at, wanted)
  for (let i = at + 1; i < claims.length; i++) {
    const claim = claims[i] as Claim
    if ((await claim.allotment.take(wanted, wanted)) < wanted) return refusedAt(claims, i, wanted)
  }
  return undefined
}

function refusedAt(claims: readonly Claim[], at: number, wanted: number): Claim | undefined {
  for (let i = 0; i < at; i++) claims[i]?.allotment.giveBack(wanted)
  return claims[at]
}

/** What an item of a batch falls under. */
export type ItemClaims = readonly Claim[]

/**
 * Takes a token of each limit for each item, as many as there are. Answers for each item the claim that refused it, or
 * undefined.
 */
export async function takeEach(items: readonly ItemClaims[]): Promise<(Claim | undefined)[]> {
  const wanted = new Map<Claim['allotment'], number>()
  for (const claims of items) {
    for (const { allotment } of claims) wanted.set(allotment, (wanted.get(allotment) ?? 0) + 1)
  }
  const left = new Map<Claim['allotment'], number>()
  for (const [allotment, count] of wanted) left.set(allotment, await allotment.take(count, 1))
  const refusals = items.map((claims) => {
    const refused = claims.find(({ allotment }) => (left.get(allotment) ?? 0) === 0)
    if (refused !== undefined) return refused
    for (const { allotment } of claims) left.set(allotment, (left.get(allotment) ?? 0) - 1)
    return undefined
  })
  for (const [allotment, count] of left) allotment.giveBack(count)
  return refusals
}

/** All of them or none. Answers the claim that refused, and how many it wanted of it. */
export async function takeTogether(
  items: readonly ItemClaims[],
): Promise<{ readonly claim: Claim; readonly wanted: number } | undefined> {
  const wanted = new Map<Claim['allotment'], { readonly claim: Claim; count: number }>()
  for (const claims of items) {
    for (const claim of claims) {
      const known = wanted.get(claim.allotment)
      if (known === undefined) wanted.set(claim.allotment, { claim, count: 1 })
      else known.count += 1
    }
  }
  const taken: { readonly claim: Claim; readonly count: number }[] = []
  for (const { claim, count } of wanted.values()) {
    if ((await claim.allotment.take(count, count)) < count) {
      for (const earlier of taken) earlier.claim.allotment.giveBack(earlier.count)
      return { claim, wanted: count }
    }
    taken.push({ claim, count })
  }
  return undefined
}
