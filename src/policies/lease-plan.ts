/**
 * Who should own which partition of an ordered stream. Pure.
 *
 *   vacant ──take──▶ owned ──asked by a poorer member──▶ handed over ──▶ vacant, reserved for who asked
 *
 * Every member computes its own moves from the same picture. The fair share of a member is a whole number of partitions, or
 * one more. One moves only from who has more than that to who has less, so no partition moves without need.
 */
export interface LeaseView {
  readonly partition: number
  /** '' when nobody has it. */
  readonly owner: string
  /** Who asks for it; '' when nobody does. */
  readonly wanted: string
  /** Looks in a row at which it had no living owner; 0 while it has one. */
  readonly vacantLooks: number
}

export interface LeasePlan {
  /** Vacant partitions to take now, the most wanted first. */
  readonly take: readonly number[]
  /** Partitions of others to ask for. */
  readonly ask: readonly number[]
  /** Own partitions to hand over. */
  readonly handOver: readonly number[]
}

/** A partition that its rightful member does not take is taken by anybody after so many looks. */
const PATIENCE_LOOKS = 4

/**
 * `living` are the members that share the stream, `me` among them. `draining` are partitions that `me` is handing over
 * already.
 */
export function planLeases(
  me: string,
  living: readonly string[],
  views: readonly LeaseView[],
  draining: ReadonlySet<number>,
): LeasePlan {
  const counts = new Map(living.map((member) => [member, 0]))
  const heldBy = (member: string): number => counts.get(member) ?? 0
  const credit = (member: string, change: number): void => {
    if (counts.has(member)) counts.set(member, heldBy(member) + change)
  }
  const share = views.length / Math.max(1, living.length)
  for (const view of views) {
    if (draining.has(view.partition) && counts.has(view.wanted)) credit(view.wanted, 1)
    else if (view.vacantLooks === 0 || view.owner === me) credit(view.owner, 1)
  }
  /** Vacant partitions that somebody asked for who still has less than a fair share. */
  const reserved = new Set<number>()
  for (const { partition, owner, wanted, vacantLooks } of views) {
    if (vacantLooks === 0 || owner === me || !counts.has(wanted) || heldBy(wanted) >= Math.ceil(share))
      continue
    reserved.add(partition)
    credit(wanted, 1)
  }
  const isFair = (from: string, to: string): boolean =>
    (heldBy(to) < Math.floor(share) && heldBy(from) > Math.floor(share)) ||
    (heldBy(to) < Math.ceil(share) && heldBy(from) > Math.ceil(share))
  const take: number[] = []
  for (const view of inOrderOf(me, views)) {
    if (view.vacantLooks === 0) continue
    const isReserved = reserved.has(view.partition)
    if (view.owner === me || (isReserved && view.wanted === me)) take.unshift(view.partition)
    else if (view.vacantLooks > PATIENCE_LOOKS || (!isReserved && heldBy(me) < Math.ceil(share))) {
      take.push(view.partition)
      if (!isReserved) credit(me, 1)
    }
  }
  // What nobody has makes shares even first: nothing else moves before that.
  if (views.some(({ vacantLooks, wanted }) => vacantLooks > 0 && !counts.has(wanted)))
    return { take, ask: [], handOver: [] }
  const handOver: number[] = []
  for (const { partition, owner, wanted } of views) {
    if (owner !== me || draining.has(partition) || wanted === me || !counts.has(wanted)) continue
    if (!isFair(me, wanted)) continue
    handOver.push(partition)
    credit(me, -1)
    credit(wanted, 1)
  }
  const isMember = (member: string): boolean => counts.has(member)
  return { take, ask: planAsks(me, views, { heldBy, credit, isMember, isFair }), handOver }
}

interface Account {
  readonly heldBy: (member: string) => number
  readonly credit: (member: string, change: number) => void
  readonly isMember: (member: string) => boolean
  /** True when one partition should go from the one to the other. */
  readonly isFair: (from: string, to: string) => boolean
}

function planAsks(me: string, views: readonly LeaseView[], account: Account): number[] {
  const { heldBy, credit, isMember, isFair } = account
  // What its owner will not grant to who asked for it is free to be asked for by others.
  const isAskedFor = ({ owner, wanted }: LeaseView): boolean => isMember(wanted) && isFair(owner, wanted)
  const free = inOrderOf(me, views).filter(
    (view) => view.vacantLooks === 0 && view.owner !== me && view.wanted !== me && !isAskedFor(view),
  )
  for (const { owner, wanted, vacantLooks } of views) {
    // One that the owner will not grant any more does not count.
    if (vacantLooks > 0 || owner === me || wanted !== me || !isFair(owner, me)) continue
    credit(me, 1)
    credit(owner, -1)
  }
  const ask: number[] = []
  for (;;) {
    const richest = free.reduce<LeaseView | undefined>(
      (best, view) => (best === undefined || heldBy(view.owner) > heldBy(best.owner) ? view : best),
      undefined,
    )
    if (richest === undefined || !isFair(richest.owner, me)) return ask
    free.splice(free.indexOf(richest), 1)
    ask.push(richest.partition)
    credit(me, 1)
    credit(richest.owner, -1)
  }
}

/** Members begin at different places, so that they seldom reach for the same partition. */
function inOrderOf(me: string, views: readonly LeaseView[]): LeaseView[] {
  const rank = (partition: number): number => Bun.hash.xxHash32(`${me} ${partition}`)
  return views.toSorted((a, b) => rank(a.partition) - rank(b.partition))
}
