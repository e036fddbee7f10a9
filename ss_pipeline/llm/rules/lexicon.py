"""The words the rules know: Chinese terms, abbreviations, synonyms. Data only; words.py and columns.py use it.

Each table is text, one group a line or entries divided by `;`, so that a person can read and extend it.
"""

from typing import Final


def _pairs(table: str) -> dict[str, str]:
    entries = (entry.strip() for line in table.splitlines() for entry in line.split(";"))
    return {left.strip(): right.strip() for left, _, right in (e.partition("=") for e in entries if e)}


def _groups(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines() if line.strip()]


CHINESE: Final = _pairs("""
    工资=wage; 薪酬=salary; 薪水=salary; 薪资=salary; 年薪=annual salary; 起薪=starting salary; 月薪=monthly wage
    周工资=weekly wage; 时薪=hourly wage; 小时工资=hourly wage; 每小时收入=hourly earnings; 劳动报酬=earnings
    收入=income; 家庭收入=family income; 非妻子收入=nonwife income; 其他收入=other income
    可支配收入=disposable income; 人均收入=per capita income; 人均=per capita; 奖金=bonus; 福利=benefits
    养老金=pension; 退休金=pension; 财富=wealth; 资产=assets; 净资产=net worth; 储蓄=saving; 消费=consumption
    支出=expenditure; 开支=expenditure; 花费=spending; 竞选支出=campaign expenditure; 信用卡=credit card
    房价=house price; 房屋价格=house price; 价格=price; 售价=selling price; 租金=rent; 房租=rent; 房屋=house
    住房=housing; 自有住房=home owner; 拥有住房=own home; 房贷=mortgage loan; 贷款=loan; 按揭=mortgage
    审批=approval; 批准=approve; 拒绝=reject; 债务=debt obligations; 负债=debt; 信用=credit; 违约=default; 逾期=late
    账单=bill; 还款=payment; 利率=interest rate; 实际利率=real interest rate; 通货膨胀=inflation; 通胀=inflation
    股价=stock price; 股票=stock; 收益率=return; 回报率=return; 投资=investment; 产出=output; 产量=output
    增长=growth; 增长率=growth rate; 国内生产总值=gross domestic product; 生产总值=gross product
    州生产总值=gross state product; 生产率=productivity; 资本=capital; 公共资本=public capital
    私人资本=private capital; 劳动=labor; 劳动力=labor force; 劳动参与=labor force participation; 劳动小时=hours
    工作时间=hours; 工时=hours; 小时数=hours; 小时=hour; 就业=employment; 雇员=employees; 员工=employees
    失业率=unemployment rate; 失业=unemployment; 进口=imports; 出口=exports; 贸易=trade; 汇率=exchange rate
    关税=tariff; 税=tax; 税率=tax rate; 啤酒税=beer tax; 香烟=cigarettes; 吸烟=smoking cigarettes
    抽烟=smoking cigarettes; 烟价=cigarette price; 饮酒=drinking alcohol; 酒精=alcohol; 啤酒=beer; 毒品=drugs
    吸毒=drugs; 销售额=sales; 销售=sales; 销量=sales; 利润=profit; 成本=cost; 费用=cost; 企业=firm; 公司=firm
    行业=industry; 研发=research development; 专利=patents; 广告=advertising; 规模=size; 数量=number
    补贴=subsidy grant; 拨款=grant; 转移支付=transfers; 援助=aid; 保险=insurance; 医疗保险=health insurance
    私人保险=private insurance; 购买=purchase takeup; 决策=decision; 教育=education; 受教育年限=years of schooling
    受教育年数=years of schooling; 受教育程度=education; 教育程度=education; 学历=education; 读书=schooling
    读一年书=schooling; 文盲=illiteracy; 识字=literacy; 上学=schooling; 大学=college; 四年制大学=four year college
    高中=high school; 中学=secondary school; 小学=primary school; 学校=school; 学区=school district; 学生=student
    教师=teacher; 老师=teacher; 师生比=student teacher ratio; 生师比=student teacher ratio; 班级=class
    班级规模=class size; 课程=course; 出勤=attendance; 上课=attend class; 缺课=skipped missed lectures
    逃课=skipped lectures; 绩点=gpa; 平均绩点=gpa; 成绩=score; 分数=score; 考试=exam; 考试成绩=exam score
    期末考试=final exam; 征兵考试=examination; 数学=math; 阅读=reading; 科学=science; 测试=test; 检测=test
    通过率=pass rate; 毕业=graduate; 辍学=dropout; 排名=rank; 百分位=percentile; 学费=tuition; 奖学金=scholarship
    培训=training; 密集培训=intensive session; 智商=iq; 能力=ability; 工作经验=work experience; 经验=experience
    从业年数=years; 工龄=tenure; 任期=tenure; 资历=seniority; 年龄=age; 岁=age; 性别=gender; 男性=male; 女性=female
    女=female; 男=male; 黑人=black; 白人=white; 西班牙裔=hispanic; 亚裔=asian; 种族=race; 民族=ethnicity
    少数族裔=minority; 外国=foreign; 移民=immigrant; 婚姻=married; 婚姻状况=marital; 已婚=married; 结婚=married
    离婚=divorced; 单身=single; 配偶=spouse; 丈夫=husband; 妻子=wife; 母亲=mother; 父亲=father; 父母=parents
    子女=kids children; 子女数=number kids; 孩子=kids children; 儿童=child; 生育=fertility children birth
    生育率=fertility; 出生体重=birth weight; 出生顺序=birth order; 人口密度=population density; 出生=birth
    兄弟姐妹=siblings; 家庭=family household; 家庭人口=household size; 户主=household head; 人口=population
    农业人口=agriculture; 农业=agriculture; 农户=farmer; 农村=rural; 城市=city; 城镇=urban
    大都市区=smsa metropolitan; 都市=metropolitan smsa; 南部=south; 北部=north; 东部=east; 西部=west; 中部=central
    地区=region; 区域=region; 省=province; 州=state; 县=county; 国家=country; 水稻=rice; 面积=area; 土地=land
    天主教=catholic; 宗教=religion; 健康=health; 疾病=illness; 患者=patient; 就诊=doctor visits; 看病=doctor visits
    医生=doctor; 医院=hospital; 死亡率=mortality death rate; 死亡=death fatal; 婴儿死亡率=infant mortality
    婴儿=infant; 存活=survived; 存活率=survived; 生存=survival; 生存时间=survival time; 无复发=recurrence free
    复发=recurrence; 治疗=treatment therapy; 激素治疗=hormonal therapy; 激素=hormone; 肿瘤=tumor
    肿瘤大小=tumor size; 分级=grade; 绝经=menopausal; 状态=status; 淋巴结=nodes; 阳性=positive; 孕激素=progesterone
    雌激素=estrogen; 受体=receptor; 体重=weight; 身高=height; 大小=size; 外貌=beauty looks; 长相=looks
    评价=evaluation rating; 评分=rating score; 满意度=satisfaction; 幸福=happiness; 犯罪=crime; 犯罪率=crime rate
    逮捕=arrest; 监狱=prison; 警察=police; 执法=law enforcement; 定罪=conviction; 法律=law; 法=law; 限速=speed limit
    安全带=seatbelt; 交通=traffic; 事故=accident; 总事故=total accidents; 投票=vote; 选举=election
    得票率=vote share percent; 得票=vote; 选票=vote; 候选人=candidate; 政党=party; 实力=strength; 支持=support
    民主=democracy; 民主党=democrat; 共和党=republican; 现任=incumbent; 政府=government; 政策=policy; 工会=union
    会员=member; 歧视=discrimination; 污染=pollution; 空气=air; 排放=emissions; 氮氧化物=nitrogen oxide nox
    垃圾=garbage; 焚烧厂=incinerator; 距离=distance; 附近=near; 中心=center; 远近=distance; 天气=weather
    温度=temperature; 降雨=rainfall; 灾害=disaster; 概率=probability; 感知=perceived; 风险=risk; 激励=incentive
    现金=cash; 领取=got pick up; 结果=results; 任何=any; 参加=attend participation; 参与=participation; 获得=receive
    拥有=own; 个人电脑=personal computer; 电脑=computer; 互联网=internet; 使用=use; 择校=choice school
    择校券=voucher; 抽中=selected; 就读=attended; 年份=year; 年数=years; 年限=years; 月份=month; 时间=time
    趋势=trend; 时间趋势=time trend; 周末=weekends; 天数=days; 次数=number; 季度=quarter; 每年=per year; 年=year
    月=month; 周=week; 日=day; 上一期=lagged; 滞后=lagged; 增量=change; 变化=change; 差分=change; 对数=log
    平方=squared; 比例=share percent; 占比=share percent; 份额=share; 百分比=percent; 率=rate; 比率=ratio; 比=ratio
    指数=index; 总=total; 平均=average; 中位数=median; 人数=number; 总数=total number; 头等舱=first class
    舱位=class; 乘客=passenger; 等级=class; 职业=occupation; 全职=full time; 兼职=part time; 工作=work job
    车辆=vehicle; 汽车=car; 油耗=mpg mileage; 里程=miles mileage; 重量=weight; 长度=length; 机场=airport
    航班=flight; 票价=fare; 乘客数=passengers; 球员=player; 得分=runs points; 本垒打=home runs; 打点=runs batted in
    击球率=batting average; 守备率=fielding; 全明星=all star; 场均=per game; 参赛=games; 比赛=games; 棒球=baseball
    篮球=basketball; 捐款=gift; 捐赠=gift; 邮件=mailings; 慈善=charity; 一岁以下=under 1; 五岁以下=under 5
    六岁以下=under 6; 以下=under; 以上=above; 超过=above; 一=1; 二=2; 两=2; 三=3; 四=4; 五=5; 六=6; 七=7; 八=8; 九=9
    十=10
""")
"""Chinese term -> English words. The longest entry wins."""

ABBREVIATIONS: Final = _pairs("""
    educ=education; edu=education; exper=experience; exp=expenditure; expend=expenditure; inc=income; avg=average
    av=average; pct=percent; perc=percent; prc=percent; pc=pc; rte=rate; crm=crime; pop=population
    unem=unemployment; unemp=unemployment; emp=employment; empl=employment; sal=salary; wg=wage; hrs=hours; hr=hour
    hrly=hourly; yr=year; yrs=years; mo=month; mos=months; wk=week; wks=weeks; wkly=weekly; num=number; nbr=number
    no=number; tot=total; dist=distance; hlth=health; hus=husband; hush=husband; moth=mother; fath=father
    mom=mother; dad=father; fam=family; hh=household; hhsize=household size; sib=siblings; sibs=siblings
    marr=married; hisp=hispanic; hispan=hispanic; blck=black; wht=white; eth=ethnicity; nrth=north; sth=south
    nrthcen=north central; northcen=north central; nrtheast=northeast; cen=central; smsa=smsa metropolitan
    coll=college; col=college; hs=high school; sch=school; schl=school; enrol=enrollment; enroll=enrollment
    stu=student; tchr=teacher; ptr=pupil teacher ratio; ptratio=pupil teacher ratio; stratio=student teacher ratio
    exam=exam; fnl=final; atnd=attend; std=standardized; stnd=standardized; gov=government; govt=government
    prty=party; str=strength; dem=democracy; repub=republican; incum=incumbent; cand=candidate; elec=election
    prob=probability; cig=cigarettes; cigs=cigarettes; alc=alcohol; drnk=drinking; bwght=birth weight; wght=weight
    wt=weight; ht=height; hght=height; lbs=pounds; mort=mortality; fert=fertility; surv=survival; durat=duration
    dur=duration; cens=censored; ins=insurance; insur=insurance; phys=physician; hosp=hospital; doc=doctor
    vis=visits; trt=treatment; treat=treatment; rx=treatment; gdp=gross domestic product; gnp=gross national product
    gsp=gross state product; cpi=consumer price index; inf=inflation; infl=inflation
    rgdp=real gross domestic product; govexp=government expenditure; cap=capital; pcap=public capital
    inv=investment; invest=investment; cons=consumption; nondur=nondurable; disp=disposable; serv=services
    int=interest; intrate=interest rate; prof=profit; mkt=market; mktval=market value; val=value; val.=value
    mv=median value; ret=return; rnd=research development; rd=research development; pat=patents; adv=advertising
    ceo=ceo; ten=tenure; comten=company tenure; ceoten=ceo tenure; sq=squared; sqr=squared; frce=force; lab=labor
    inlf=labor force; lfp=labor force participation; kidslt=kids under; lt=under; ge=least; gt=above; le=most
    nox=nitrogen oxide nox; prop=property; proptax=property tax; hprice=house price; rm=rooms; lot=lot
    sqrft=square feet; bdrms=bedrooms; baths=bathrooms; lpc=log percent; fare=fare; passen=passengers
    pass=passengers; conc=concentration; concen=concentration; mph=mph; acc=accidents; fat=fatal; tax=tax
    reg=region; admn=administrative; lic=license; veh=vehicle; gaspr=gasoline price; temp=temperature; pov=poverty
    urb=urban; urban=urban; rur=rural; occ=occupation; indus=industry; ind=industry; manuf=manufacturing
    agric=agriculture; constr=construction; construc=construction; prom=promotion; trn=training; train=training
    jtrain=training; hrsemp=hours training employee; scrap=scrap; grnt=grant; loan=loan; appr=approve
    mortg=mortgage; crim=crime; arr=arrest; narr=number arrests; conv=conviction; pris=prison
    prbarr=probability arrest; prbconv=probability conviction; prbpris=probability prison; avgsen=average sentence
    polpc=police per capita; polic=police; pol=police; wed=weekend; wkend=weekends; wkends=weekends; yjob=years job
    ben=benefits; bens=benefits; benef=benefits; ac=ac; sc=score; iq=iq; kww=kww; sat=sat; act=act; gpa=gpa
    ability=ability; libvol=library volumes; lib=library; lsat=lsat; clsize=class size; ag=agricultural
    agpop=household size; ar=area; lit=literacy; dens=density; popden=population density; off=officers
    offic=officers; eval=evaluation; looks=looks; belavg=below average; abvavg=above average; bel=below; abv=above
    own=own; ownrent=own home; vol=volume; qty=quantity; quant=quantity; pr=price; prce=price
""")
"""Name piece or shortened word -> the words it stands for."""

SYNONYMS: Final = _groups("""
    wage salary earnings earn pay compensation remuneration
    income revenue
    education schooling educated
    experience seniority
    kids children child kid
    house home housing homes dwelling
    price value cost
    spend expenditure spending expenses expense outlay expends
    share percent percentage fraction proportion pct
    gender sex
    race ethnicity ethnic racial
    looks beauty attractiveness good-looking appearance looking
    death fatal fatality mortality died dead killed
    crime offense criminal crimes
    job employment employed work working
    unemployment jobless unemployed
    student pupil
    class lecture course
    skip miss absent absence absenteeism
    score test exam grade examination
    gpa grade-point
    car automobile vehicle
    distance far km
    near close nearby proximity
    area size footage
    company firm business
    sales turnover
    output production product
    buy purchase takeup bought
    gift donation donate give guilders
    duration spell length
    health healthy
    illness disease sick ill
    marital married marriage
    smoke cigarettes cigarette smoking
    drink alcohol drinking
    jail prison incarcerated imprisonment
    convicted conviction
    incumbent incumbency
    vote votes voting
    grant subsidy
    union unionized
    growth change increase
    lag lagged previous
    city urban town
    religion religious church
    support approval
    approve approved
    credit loan
    parity order
    maths math mathematics
    volume quantity
    therapy treatment
    tumor tumour
    visit visits
    big large
    own owner ownership rent
    train training programme program
    minority nonwhite
    law laws legislation
    passengers passenger traffic
    late delinquent overdue
    bathroom bath
    mileage mpg
    results result
    pick got
""")
"""Words that mean the same for finding a column."""

RELATED: Final = _pairs("""
    gender=male female man woman; sex=male female man woman; race=black white hispanic nonwhite asian
    ethnicity=black white hispanic; racial=black white hispanic; marital=married divorced single
    region=south north east west northeast central; demographic=age male female black hispanic married
    human-capital=education experience tenure; position=guard forward center; family=kids household husband
    household=family; bought=takeup; earn=income; paid=income; surviving=survived; survive=survived
    survival=survived time duration; fertility=kids children born; pollution=nox nitrogen; accident=crash fatal
    participation=participate; computer=pc; productivity=output gdp; fertile=kids; poverty=poor; retirement=pension
    graduate=grad; population=pop; participate=labor; recidivism=duration return; wealth=assets
    urban=smsa metropolitan; metropolitan=smsa urban; parents=mother father; parent=mother father; father=dad
    mother=mom; pollutant=nox; exercise=sport; teacher=tchr; women=female; woman=female gender sex; men=male
    man=male gender sex; black=race ethnicity; white=race ethnicity; hispanic=race ethnicity; male=gender sex
    female=gender sex; girl=female; boy=male; wife=female; trend=time; instructor=teacher prof; labor=employment
    worker=employment
""")
"""Word in a requirement -> words of columns that stand for it (one way only)."""

STOPWORDS: Final = frozenset(
    """
    a an the of in on for and or to is are was were be been with does do did has have had if at by from as it its
    how much what which whether that this these those after before given more less than per not no their our we they
    them he she his her there when where who whom whose one all same into out up down over within between among
    across can could will would should may might also both each such only just very so then once about please want
    know estimate analyse analyze study using use used get gets got receive receives received take taken make made
    let us i my me you your data dataset variable variables variation effect effects impact influence relationship
    association matter matters main usual standard other plus while still via candidate indicator indicators dummy
    dummies equal specification model regression ols core key level higher lower greater fewer better worse high low
    """.split()  # noqa: SIM905
)
"""Words that say nothing about which column is meant. As exact column names they still count."""

GENERIC: Final = frozenset(
    """
    number rate percent share average total year years log mean median index level ratio score per time annual hour
    hourly month monthly week weekly day value status amount squared change people person individual number adult
    full
    """.split()  # noqa: SIM905
)
"""Words that many columns carry: they count less."""

OUTCOME_WORDS: Final = frozenset(
    """
    wage salary earnings price rent crime mortality death fatal score gpa vote output product sales profit survived
    survival expenditure consumption fertility kids births visits duration hours employment unemployment growth
    support evaluation rating weight participation arrests accidents takeup approve absent days patents passengers
    demand yield income
    """.split()  # noqa: SIM905
)
"""Words of what analyses usually explain; they decide which of two variables is the outcome where the text does not."""

NUMBER_WORDS: Final = _pairs("""
    one=1; two=2; three=3; four=4; five=5; six=6; seven=7; eight=8; nine=9; ten=10; first=1; second=2; third=3
    fourth=4; fifth=5; sixth=6; seventh=7; eighth=8; ninth=9; tenth=10; twelve=12; eighteen=18; january=jan
    february=feb
""")

SPELLINGS: Final = _pairs("""
    centre=center; centres=center; labour=labor; programme=program; programmes=program; behaviour=behavior
    tumour=tumor; neighbour=neighbor; children=child; women=woman; men=man; wives=wife; lives=life; died=death
    rated=evaluation; rating=evaluation; ratings=evaluation; paid=pay; bought=buy; gave=give; spent=spend; sold=sale
    taught=teach; enrolment=enrollment; cheque=check; licence=license; theatre=theater; grey=gray
""")
