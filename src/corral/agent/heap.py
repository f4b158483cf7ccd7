"""The garbage collector of a process full of objects that live long: short collections, and none of everything."""

import asyncio
import gc
from typing import Final

FREEZE_EVERY_S: Final = 60.0
FREEZES_A_DAY: Final = 24 * 60
NEVER: Final = 2**31 - 1


async def keep_collections_short() -> None:
    """By itself the collector looks at everything whenever that has grown by a quarter. With ten thousand VMs this takes
    more than half a second, in which nobody is answered, and it finds nothing: they are freed by reference counting.

    So what is old enough is put aside every minute instead. Cycles among it, such as those of a stream that was open
    then and has ended since, are looked for once a day."""
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, NEVER)
    while True:
        for _ in range(FREEZES_A_DAY):
            await asyncio.sleep(FREEZE_EVERY_S)
            gc.collect(1)
            gc.freeze()
        gc.unfreeze()
        gc.collect()
